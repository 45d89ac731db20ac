"""What `scripts/bench` measures, a section a module."""
