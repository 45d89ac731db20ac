"""What is in a disk's image: partitions, file systems, and what its boot loader would start. Read, never mounted."""
