"""Domain XML of libvirt -> a profile, and what became of each part of the XML."""
