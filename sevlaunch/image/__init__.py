"""What a guest boots from: fetched images, overlays, the seed of a first boot."""
