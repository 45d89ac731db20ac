"""What an entry of the tables of failures is, and the advice that several have in common."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A failure that QEMU words so.

    ``pattern``: a regular expression for its output; ``printed``: what QEMU has of it in its binary, word for word;
    ``source``: where in QEMU, and who has met it.
    """

    pattern: str
    hint: str
    printed: str
    source: str


PERMISSION = "which this user, or the one of run_as, may not: join its group, or set an ACL on it (setfacl)"
LOCK_LIMIT = (
    "the limit on locked memory is too low for this guest: raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a service, "
    "limits.conf), or use memory.hugepages"
)
MEMORY = "there is not enough free memory, or too few huge pages are free: take less, or free some"
KVM_ALL = "accel/kvm/kvm-all.c"
