"""Probes -> Host: CPUID, KVM, the QEMU binary, firmware descriptors, memory and limits."""
