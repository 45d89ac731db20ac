"""sevlaunch: AMD SEV, SEV-ES and SEV-SNP guests on QEMU, without libvirt.

Data flows one way: profile and host -> plan -> argv -> guest -> evidence. Programs use :mod:`sevlaunch.api`, or
:mod:`sevlaunch.sync` without asyncio; everything else may change.
"""

__version__ = "0.1.0"
