"""The emulated secure processor: the real QEMU's real launch on a host without SEV. Memory is NOT encrypted.

``platform`` and ``processor`` are pure; ``kvm`` translates KVM's ioctls to the processor's commands; ``seccomp``
intercepts them; ``helper`` is the process that puts them together and lives as long as QEMU.
"""
