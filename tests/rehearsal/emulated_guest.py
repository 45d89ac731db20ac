"""A guest's reports without a guest: the emulated processor goes through a launch, and answers over TCP."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sevlaunch.rehearsal.platform import Platform
from sevlaunch.rehearsal.snp_processor import SnpGuest
from sevlaunch.sevapi.certificate_table import KNOWN, make_table
from sevlaunch.sevapi.ovmf import SectionKind, es_reset_eip, sev_metadata
from sevlaunch.sevapi.report import REPORT_DATA_BYTES
from sevlaunch.sevapi.snp import PAGE, VMSA_GPA, PageType
from sevlaunch.sevapi.vmsa import vmsa_pages

POLICY = 0x30000
_TYPES = {SectionKind.SNP_SECRETS: PageType.SECRETS, SectionKind.CPUID: PageType.CPUID}


@cache
def platform(name: str = "") -> Platform:
    """An emulated platform; making its keys takes seconds."""
    del name
    return Platform.generate()


def launched(
    image: bytes, *, vcpus: int, signature: int, host_data: bytes = bytes(32), on: Platform | None = None
) -> SnpGuest:
    """The guest of an image, launched as QEMU does it without kernel hashes."""
    guest = SnpGuest(on or platform())
    guest.launch_start(POLICY, bytes(16))
    for at in range(0, len(image), PAGE):
        guest.launch_update(PageType.NORMAL, (1 << 32) - len(image) + at, image[at : at + PAGE])
    for section in sev_metadata(image):
        for gpa in range(section.gpa, section.gpa + section.size, PAGE):
            guest.launch_update(_TYPES.get(section.kind, PageType.ZERO), gpa, bytes(PAGE))
    pages = vmsa_pages(
        vcpus, ap_eip=es_reset_eip(image), cpu_signature=signature, init2=True, sev_features=1, vmm="QEMU"
    )
    for page in pages:
        guest.launch_update(PageType.VMSA, VMSA_GPA, page)
    guest.launch_finish(host_data=host_data)
    return guest


def root_of(one: Platform) -> bytes:
    """The platform's ARK in PEM."""
    return x509.load_der_x509_certificate(one.endorsement[2]).public_bytes(Encoding.PEM)


def answer(guest: SnpGuest, data: bytes, *, on: Platform | None = None) -> bytes:
    """Report and table of certificates, as configfs-tsm has them in outblob and auxblob."""
    names: dict[str, UUID] = {name: guid for guid, name in KNOWN.items()}
    chain = zip(("VCEK", "ASK", "ARK"), (on or platform()).endorsement, strict=True)
    return guest.report(data) + make_table({names[name]: content for name, content in chain})


@contextmanager
def answering(respond: Callable[[bytes], bytes]) -> Iterator[int]:
    """The port on 127.0.0.1 where 64 bytes are answered, as ``respond`` does at that moment."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data = b""
            while len(data) < REPORT_DATA_BYTES and (piece := self.request.recv(REPORT_DATA_BYTES)):
                data += piece
            if len(data) == REPORT_DATA_BYTES:
                self.request.sendall(respond(data))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
