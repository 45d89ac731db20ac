"""Files that a launch may have had instead of the expected ones: each is looked at for what it can be."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sevlaunch.errors import UsageError
from sevlaunch.files import hash_file
from sevlaunch.opening import open_given
from sevlaunch.owner.change import Others
from sevlaunch.owner.firmware import Firmware, read_firmware
from sevlaunch.owner.lock import Lock, read_lock

# Documentation/arch/x86/boot.rst: the magic of a kernel's header, and where it is; a PE image begins with MZ.
_KERNEL, _KERNEL_AT = b"HdrS", 0x202
_PE = b"MZ"
_HEAD_BYTES = _KERNEL_AT + len(_KERNEL)


def read_others(files: Sequence[Path]) -> Others:
    """What these firmware images, kernels, initrds and lock files have for a launch.

    A lock counts with its hashes, and with its firmware where that file is at hand as it was.

    :raise UsageError: when one can't be read.
    """
    found = Others()
    for file in files:
        head = _head(file)
        if head.lstrip().startswith(b"{"):
            _add_lock(found, file, read_lock(file))
        elif (image := _firmware(file)) is not None:
            found.firmwares[str(file)] = image
        elif head.startswith(_PE) or head[_KERNEL_AT:] == _KERNEL:
            found.kernels[str(file)] = hash_file(file, "kernel")
        else:
            found.initrds[str(file)] = hash_file(file, "initrd")
            found.initrd_files[str(file)] = file
    return found


def _add_lock(found: Others, file: Path, lock: Lock) -> None:
    with suppress(UsageError):
        image = read_firmware(Path(lock.firmware.path))
        if image.sha256.hex() == lock.firmware.sha256:
            found.firmwares[f"{lock.firmware.path} of {file}"] = image
    if lock.kernel:
        found.kernels[f"{lock.kernel.path} of {file}"] = bytes.fromhex(lock.kernel.sha256)
    if lock.initrd:
        found.initrds[f"{lock.initrd.path} of {file}"] = bytes.fromhex(lock.initrd.sha256)
    if lock.initrd and lock.initrd_with_credentials:
        both = f"{lock.initrd.path} with the credentials of {file}"
        found.initrds[both] = bytes.fromhex(lock.initrd_with_credentials)
    if lock.cmdline:
        found.cmdlines[f"{lock.cmdline.text!r} of {file}"] = bytes.fromhex(lock.cmdline.sha256)


def _head(file: Path) -> bytes:
    try:
        with open_given(file) as stream:
            return stream.read(_HEAD_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--try: can't read {file}: {reason}", hint="name a file that is there") from error


def _firmware(file: Path) -> Firmware | None:
    """The firmware in a file; None: it is none that an encrypted guest could have."""
    try:
        image = read_firmware(file)
    except UsageError:
        # Too large, damaged, or empty: something else.
        return None
    return image if image.reset_eip or image.sections else None
