"""The formats of AMD's SEV API (AMD 55766): status codes, certificates, sessions, measurements, secrets, VMSA pages.

Bytes in, bytes out: nothing here knows of files, QEMU or the network. The emulated processor speaks these formats from
the processor's side, the guest owner from the other one.
"""
