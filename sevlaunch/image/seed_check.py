#!/usr/bin/python3 -I
"""In a guest, before cloud-init: is the first-boot seed the one that the secure processor vouches for?

The host makes the seed and could change it. The init-data on another disk has the SHA-256 of the seed's files, and its
own digest is HOST_DATA of the launch, which the guest's attestation report shows: AMD 56860, table
"ATTESTATION_REPORT". The kernel gets that report from the processor over a channel that the host can't write to. So
this program, which has to be part of what the launch measures, compares the three, and gives cloud-init what it has
compared, in a folder of the guest's own. It stands alone: Python 3.11, and nothing of sevlaunch.

Exit 0: all is as it has to be; 1: it is not, and nothing is given to cloud-init.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

# kata-containers' layout of the disk: magic, little-endian length of what is packed by gzip.
MAGIC = b"initdata"
HEAD = struct.Struct("<8sQ")
MOST_BYTES = 1 << 20
# What the keys of init-data begin with that are the seed's files.
SEED = "seed/"
MOST_SEED_BYTES = 64 << 20
# Where HOST_DATA stands in a report, and how many bytes the report has.
HOST_DATA = slice(0xC0, 0xE0)
REPORT_BYTES = 0x4A0
# include/uapi/linux/sev-guest.h: SNP_GET_REPORT, struct snp_guest_request_ioctl, snp_report_req and snp_report_resp.
GET_REPORT = 0xC0205300
REQUEST = struct.Struct("<B7xQQQ")
QUESTION = struct.Struct("<64sI28x")
ANSWER_BYTES, ANSWER_HEAD = 4000, struct.Struct("<II24x")
TSM = Path("/sys/kernel/config/tsm/report")
SEV_GUEST = Path("/dev/sev-guest")
LABEL = Path("/dev/disk/by-label/cidata")
SERIAL = Path("/sys/class/dmi/id/product_serial")
CLOUD_INIT = Path("/var/lib/cloud/seed/nocloud")


class Wrong(Exception):
    """Why the seed is not given to cloud-init."""


def main() -> int:
    """Compare; say what was found."""
    options = parsed()
    try:
        check_serial(options.serial)
        document = unpacked(options.initdata or initdata_disk())
        bound, wanted = bound_files(document), host_data_of(document)
        if options.without_report:
            say(
                "NOTHING IS PROVED: no report is asked for, and the host could have changed seed and init-data together"
            )
        else:
            check_host_data(wanted, options.report.read_bytes() if options.report else report())
        with opened(options.seed or LABEL) as folder:
            files = read_seed(folder)
        check_files(files, bound)
        give(files, options.to)
    except Wrong as wrong:
        say(f"REFUSED: {wrong}")
        return 1
    except OSError as error:
        say(f"REFUSED: {error}")
        return 1
    say(f"the seed is the bound one: {', '.join(sorted(files))}; the init-data is that of HOST_DATA {wanted.hex()}")
    return 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare the first-boot seed with the init-data in HOST_DATA.")
    path: dict[str, Any] = {"type": Path, "metavar": "PATH"}
    parser.add_argument("--initdata", **path, help="its disk, or a copy of it; default: the one that begins so")
    parser.add_argument("--seed", **path, help="its disk or a folder; default: the disk with the label cidata")
    parser.add_argument("--report", **path, help="a report in a file, in place of the processor's")
    parser.add_argument("--without-report", action="store_true", help="for a guest that has none: it proves nothing")
    parser.add_argument(
        "--to", **path, default=CLOUD_INIT, help=f"where cloud-init takes it from; default: {CLOUD_INIT}"
    )
    parser.add_argument("--serial", **path, default=SERIAL, help=argparse.SUPPRESS)
    return parser.parse_args()


def say(text: str) -> None:
    """One line; what the host wrote can't do more to a terminal than be read."""
    print("sevlaunch seed check:", "".join(sign if sign.isprintable() else "?" for sign in text), file=sys.stderr)


def refuse(text: str) -> NoReturn:
    """:raise Wrong: always."""
    raise Wrong(text)


def check_serial(file: Path) -> None:
    """cloud-init's NoCloud takes the address of another seed from the SMBIOS serial number, which is the host's."""
    try:
        serial = file.read_text(errors="replace")
    except OSError:
        return
    if "ds=" in serial.lower():
        refuse(f"the SMBIOS serial number names a seed: {serial.strip()}")


def initdata_disk() -> Path:
    """The disk that begins as init-data does."""
    for entry in sorted(Path("/sys/class/block").iterdir()):
        device = Path("/dev") / entry.name
        try:
            with device.open("rb") as stream:
                if stream.read(len(MAGIC)) == MAGIC:
                    return device
        except OSError:
            # Drives without a medium, for one.
            continue
    refuse("there is no disk with init-data")


def unpacked(file: Path) -> bytes:
    """The document on the disk."""
    with file.open("rb") as stream:
        head = stream.read(HEAD.size)
        if len(head) < HEAD.size or not head.startswith(MAGIC):
            refuse(f"{file} is no disk with init-data")
        length = HEAD.unpack(head)[1]
        if length > MOST_BYTES:
            refuse(f"the init-data on {file} is larger than {MOST_BYTES} bytes")
        packed = stream.read(length)
    try:
        unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
        document = unpacking.decompress(packed, MOST_BYTES + 1)
    except zlib.error as error:
        refuse(f"the init-data on {file} can't be unpacked: {error}")
    if len(document) > MOST_BYTES or not unpacking.eof:
        refuse(f"the init-data on {file} is cut short, or larger than {MOST_BYTES} bytes")
    return document


def parse(document: bytes) -> dict[str, Any]:
    """What the document says, in TOML or JSON."""
    try:
        text = document.decode()
        if text.lstrip().startswith("{"):
            return dict(json.loads(text))
        import tomllib

        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        refuse(f"the init-data is neither TOML nor JSON: {error}")
    except ImportError:
        refuse("this Python is too old to read TOML: it takes 3.11")


def bound_files(document: bytes) -> dict[str, str]:
    """SHA-256 of the seed's files by their names."""
    data = parse(document).get("data")
    texts = data.items() if isinstance(data, dict) else ()
    bound = {str(name)[len(SEED) :]: str(text) for name, text in texts if str(name).startswith(SEED)}
    return bound or refuse("the init-data binds no seed")


def host_data_of(document: bytes) -> bytes:
    """HOST_DATA of a launch with this document: its digest, of 32 bytes."""
    algorithm = str(parse(document).get("algorithm")).replace("-", "")
    if algorithm not in ("sha256", "sha384", "sha512"):
        refuse(f"the init-data names no algorithm that is known: {algorithm}")
    return hashlib.new(algorithm, document).digest()[:32].ljust(32, b"\0")


def check_host_data(wanted: bytes, content: bytes) -> None:
    """See that HOST_DATA in a report is the wanted one."""
    if len(content) < REPORT_BYTES:
        refuse(f"wanted a report of {REPORT_BYTES} bytes, found {len(content)}")
    found = content[HOST_DATA]
    if found != wanted:
        refuse(f"HOST_DATA is {found.hex()}, and the init-data's digest is {wanted.hex()}: it is another one")


def report() -> bytes:
    """This guest's own report, over nothing: it goes nowhere."""
    # It is there where the processor's driver is; on most systems that is a module.
    subprocess.run(["modprobe", "-q", "sev-guest"], check=False)
    if TSM.is_dir():
        entry = TSM / f"sevlaunch-{os.getpid()}"
        try:
            entry.mkdir()
        except OSError as error:
            # The folder is there with the module, whether or not there is a processor that answers.
            refuse(f"this guest has no report: nobody makes any in {TSM} ({error.strerror})")
        try:
            provider = (entry / "provider").read_text().strip()
            if provider != "sev_guest":
                refuse(f"reports are made by {provider}, and not by the SEV driver")
            (entry / "inblob").write_bytes(bytes(64))
            return (entry / "outblob").read_bytes()
        finally:
            entry.rmdir()
    if SEV_GUEST.exists():
        return report_by_ioctl()
    refuse(f"this guest has no report: neither {TSM} nor {SEV_GUEST} is there")


def report_by_ioctl() -> bytes:
    """As kernels before 6.7 give it."""
    import ctypes
    import fcntl

    question = ctypes.create_string_buffer(QUESTION.pack(bytes(64), 0), QUESTION.size)
    answer = ctypes.create_string_buffer(ANSWER_BYTES)
    request = bytearray(REQUEST.pack(1, ctypes.addressof(question), ctypes.addressof(answer), 0))
    with SEV_GUEST.open("rb") as device:
        fcntl.ioctl(device, GET_REPORT, request)
    status, size = ANSWER_HEAD.unpack_from(answer.raw)
    if status:
        refuse(f"the processor gives no report: status {status:#x}")
    return answer.raw[ANSWER_HEAD.size : ANSWER_HEAD.size + size]


@contextmanager
def opened(seed: Path) -> Iterator[Path]:
    """The folder with the seed's files: what is mounted of its disk, for as long as they are read."""
    if seed.is_dir():
        yield seed
        return
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=False)
    with tempfile.TemporaryDirectory(prefix="sevlaunch-seed-") as folder:
        mount = ["mount", "-t", "iso9660", "-o", "ro,nosuid,nodev,noexec", str(seed), folder]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            refuse(f"the seed can't be read: {done.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def read_seed(folder: Path) -> dict[str, bytes]:
    """The seed's files, read once: the host could answer otherwise the second time."""
    files: dict[str, bytes] = {}
    left = MOST_SEED_BYTES
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or not entry.is_file():
            refuse(f"the seed has {entry.name}, which is no file")
        with entry.open("rb") as stream:
            files[entry.name] = stream.read(left + 1)
        left -= len(files[entry.name])
        if left < 0:
            refuse(f"the seed is larger than {MOST_SEED_BYTES} bytes")
    return files


def check_files(files: dict[str, bytes], bound: dict[str, str]) -> None:
    """See that the seed has all that is bound, as it is bound, and nothing else."""
    wrong = [f"{name} is not there" for name in sorted(bound) if name not in files]
    for name, content in files.items():
        if name not in bound:
            wrong.append(f"{name} is there, and not bound")
        elif hashlib.sha256(content).hexdigest() != bound[name]:
            wrong.append(f"{name} was changed")
    if wrong:
        refuse(f"the seed is not the bound one: {'; '.join(wrong)}")


def give(files: dict[str, bytes], to: Path) -> None:
    """Put the files where cloud-init takes them from: a folder that the host does not fill."""
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in to.iterdir():
        entry.unlink()
    for name, content in files.items():
        fd = os.open(to / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)


if __name__ == "__main__":
    sys.exit(main())
