"""The kinds of files that strangers make, and the commands that read them, each with the exit codes it may end with."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives.serialization import Encoding

from sevlaunch.sevapi.certificate_table import KNOWN, make_table
from sevlaunch.sevapi.report_response import make_response
from tests.conftest import PROFILES, ROOT
from tests.contents.disks import kernel, uki
from tests.libvirt.support import SEV as SEV_XML
from tests.libvirt.support import domain
from tests.mutants.changes import Change, change_bytes, change_json, change_text
from tests.owner.collectors import as_json, go_attestation, trustee_evidence
from tests.owner.images import ovmf
from tests.owner.launches import write_keys
from tests.owner.pki import Processor, der, pem, processor, revocation_list, sev_chain
from tests.owner.test_report_command import WAIVED
from tests.owner.test_report_command import evidence as snp_evidence
from tests.owner.test_verify import ES, SEV

Words = list[str | Path]


@dataclass(frozen=True)
class Reader:
    """A file that is right, how it is changed, and what reads it; the file is the first word that is ``{}``."""

    content: bytes
    change: Change
    words: Sequence[str | Path]
    codes: frozenset[int]
    name: str = "mutant"

    def command(self, folder: Path) -> list[str]:
        """The command line."""
        return [str(folder / self.name) if word == "{}" else str(word) for word in self.words]


def _report_folder(folder: Path) -> tuple[Processor, Words]:
    ours = processor(version=3)
    certs = folder / "certs"
    certs.mkdir(exist_ok=True)
    (certs / "vcek").write_bytes(der(ours.certificates[0]))
    (certs / "chain").write_bytes(pem(*ours.certificates[1:]))
    (folder / "root").write_bytes(pem(ours.certificates[2]))
    (folder / "report").write_bytes(ours.signed())
    return ours, ["--root", folder / "root", "--at", "2026-01-01", *WAIVED]


def _owner_folder(folder: Path) -> Words:
    (folder / "ovmf.fd").write_bytes(ovmf())
    for kind, policy in (("sev", "0x33"), ("sev-es", "0x37")):
        text = f"cpus: 2\nfirmware: {{image: ovmf.fd}}\nsecurity: {{type: {kind}, policy: {policy}}}\n"
        (folder / f"{kind}.yaml").write_text(text)
    tik, tek = write_keys(folder)
    (folder / "evidence").write_text(json.dumps(SEV.evidence()))
    (folder / "secret").write_text("x")
    return ["--tik", tik, "--tek", tek]


def evidences(folder: Path) -> list[Reader]:
    """What a host says of a launch."""
    keys = _owner_folder(folder)
    ours, _ = _report_folder(folder)
    codes = frozenset({0, 1, 7, 8, 9})
    packet: Words = ["--header", folder / "new-header", "--payload", folder / "new-payload"]
    secret: Words = ["--secret", f"luks:{folder / 'secret'}", "--unverified", *packet]
    return [
        *(
            Reader(
                json.dumps(host.evidence()).encode(),
                change_json,
                ["owner", "verify", "{}", *keys, "--profile", folder / f"{kind}.yaml"],
                codes,
            )
            for host, kind in ((SEV, "sev"), (ES, "sev-es"))
        ),
        Reader(
            json.dumps(SEV.evidence()).encode(),
            change_json,
            ["owner", "secret", "--evidence", "{}", *keys, *secret],
            codes,
        ),
        Reader(
            snp_evidence(ours).encode(), change_json, ["owner", "report", "{}", "--rehearsal", *WAIVED], codes | {2}
        ),
    ]


def sev_certificates(folder: Path) -> list[Reader]:
    """A platform's chain, and AMD's part of it."""
    ours = sev_chain()
    (folder / "ark").write_bytes(ours.ark.to_bytes())
    words: Words = [
        "owner",
        "session",
        "--pdh",
        "{}",
        "--root",
        folder / "ark",
        "--policy",
        "1",
        "--out",
        folder / "new",
    ]
    chain = ours.exported + ours.authorities
    codes = frozenset({0, 1, 2, 9})
    return [
        Reader(content, change_bytes, [*words, "--insecure"], codes) for content in (chain, base64.encodebytes(chain))
    ]


def x509_certificates(folder: Path) -> list[Reader]:
    """VCEK, chain and revocation list, in DER, in PEM, and in a host's table."""
    ours, trusting = _report_folder(folder)
    listed = revocation_list(5, 6)
    (folder / "crl").write_bytes(listed.public_bytes(Encoding.DER))
    guids = {name: guid for guid, name in KNOWN.items()}
    contents = {"CRL": listed.public_bytes(Encoding.DER), "ASK": pem(ours.certificates[1])}
    contents |= {name: der(one) for name, one in zip(("VCEK", "ARK"), ours.certificates[::2], strict=True)}
    table = make_table({guids[name]: content for name, content in contents.items()})
    words: Words = ["owner", "report", folder / "report", *trusting, "--crl"]
    certs: Words = [*words, folder / "crl", "--certs", folder / "certs"]
    # A certificate that is lacking because its file can't be read leaves no answer.
    codes = frozenset({0, 1, 2, 7})
    return [
        Reader(der(ours.certificates[0]), change_bytes, certs, codes, "certs/vcek"),
        Reader(pem(*ours.certificates[1:]), change_text, certs, codes, "certs/chain"),
        Reader(table, change_bytes, [*words, folder / "crl", "--certs", "{}"], codes),
        Reader(listed.public_bytes(Encoding.DER), change_bytes, [*words, "{}", "--certs", folder / "certs"], codes),
        Reader(listed.public_bytes(Encoding.PEM), change_text, [*words, "{}", "--certs", folder / "certs"], codes),
    ]


def reports(folder: Path) -> list[Reader]:
    """An attestation report, raw and in hexadecimal, with certificates behind it, and as collectors write it."""
    ours, trusting = _report_folder(folder)
    guids = {name: guid for guid, name in KNOWN.items()}
    names = zip(("VCEK", "ASK", "ARK"), ours.certificates, strict=True)
    table = make_table({guids[name]: der(one) for name, one in names})
    report = ours.signed()
    words: Words = ["owner", "report", "{}", *trusting]
    certs: Words = ["--certs", folder / "certs"]
    codes = frozenset({0, 1, 7})
    return [
        Reader(report, change_bytes, [*words, *certs], codes),
        Reader(report.hex().encode(), change_bytes, [*words, *certs], codes),
        # Without certificates of its own it is wrong usage.
        Reader(report + table, change_bytes, words, codes | {2}),
        Reader(make_response(report) + table, change_bytes, words, codes | {2}),
        Reader(go_attestation(report, {1: der(ours.certificates[0])}), change_bytes, [*words, *certs], codes),
        Reader(as_json(trustee_evidence(report)), change_json, [*words, *certs], codes),
    ]


def requirements(folder: Path) -> list[Reader]:
    """A file of requirements, which `owner report` takes."""
    _, trusting = _report_folder(folder)
    text = "vmpl: 0\nmin_tcb: {snp: 8}\nplatform: [no-smt]\nmin_abi: '0.0'\nmitigations: 0x0\n"
    words: Words = ["owner", "report", folder / "report", *trusting, "--certs", folder / "certs", "--require", "{}"]
    return [Reader(text.encode(), change_text, words, frozenset({0, 1, 2}))]


def locks(folder: Path) -> list[Reader]:
    """Launch lock files."""
    keys = _owner_folder(folder)
    lock = {
        "lock": 1,
        "name": "guest",
        "type": "sev",
        "policy": 0x33,
        "qemu": "10.0.2",
        "vcpus": 1,
        "cpu": {"model": "EPYC", "signature": None},
        "firmware": {"path": "/ovmf.fd", "sha256": SEV.launch.firmware.sha256.hex()},
        "kernel": None,
        "initrd": {"path": "initrd", "sha256": "11" * 32},
        "cmdline": {"text": "console=ttyS0", "sha256": "22" * 32},
        "kernel_hashes": False,
        "initdata": {"algorithm": "sha-256", "digest": "33" * 32, "data": {"aa.toml": "44" * 32}},
        "digests": {"launch": SEV.launch.firmware.sha256.hex()},
    }
    content = json.dumps(lock).encode()
    (folder / "lock").write_bytes(content)
    verify: Words = ["owner", "verify", folder / "evidence", *keys, "--lock", "{}"]
    return [
        Reader(content, change_json, verify, frozenset({0, 1, 2, 8})),
        Reader(content, change_json, ["owner", "compare", folder / "lock", "{}"], frozenset({0, 1, 2})),
    ]


def domains(folder: Path) -> list[Reader]:
    """Domain XML of libvirt's."""
    disks = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a.qcow2'/>"
        "<target dev='vda' bus='virtio'/></disk>\n<interface type='network'><source network='default'/>"
        "<model type='virtio'/></interface>\n<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
    )
    contents = (domain(disks, before=SEV_XML).encode(), (ROOT / "tests/libvirt/sles15-sev-guest.xml").read_bytes())
    words: Words = ["import", "{}", "-o", folder / "new.yaml"]
    # 2: nothing is left of it.
    return [Reader(content, change_text, words, frozenset({0, 1, 2, 3})) for content in contents]


def catalogues(folder: Path) -> list[Reader]:
    """Catalogues of images, as a project or a company hands them round."""
    content = (ROOT / "sevlaunch/image/catalogue.toml").read_bytes()
    return [Reader(content, change_text, ["image", "ls", "--known", "--catalogue", "{}"], frozenset({0, 2}))]


def profiles(folder: Path) -> list[Reader]:
    """Profiles, through the one command that is safe for a stranger's."""
    contents = [
        (PROFILES / f"{name}.yaml").read_bytes() for name in ("plain", "sev", "sev-es", "sev-snp", "sles15-sev")
    ]
    words: tuple[Words, ...] = (["check", "{}"], ["check", "--untrusted", "{}"])
    return [Reader(one, change_text, each, frozenset({0, 1}), "x.yaml") for one in contents for each in words]


def first_boots(folder: Path) -> list[Reader]:
    """What a profile names for a guest's first boot: documents, keys, and Ignition's configuration."""
    contents = {
        "user_data": b"#cloud-config\nusers: [default]\nruncmd: [ls]\nwrite_files:\n- {path: /a, content: b}\n",
        "meta_data": b"instance-id: one\nlocal-hostname: web\n",
        "network_config": b"network:\n  version: 2\n  ethernets: {eth0: {dhcp4: true}}\n",
        "ssh_keys": b"# mine\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vIHJlYWwga2V5LCB3aGljaCBub2JvZHkgaGFzIGl0 me\n",
        "ignition": b'{"ignition": {"version": "3.4.0"}}',
    }
    readers = []
    for key, content in contents.items():
        value = "[mutant]" if key == "ssh_keys" else "mutant"
        text = f"{key}: {value}\n" if key == "ignition" else f"first_boot: {{{key}: {value}}}\n"
        profile = folder / f"{key}.yaml"
        profile.write_text(text)
        readers.append(Reader(content, change_text, ["check", profile], frozenset({0, 1})))
    return readers


def init_data(folder: Path) -> list[Reader]:
    """Init-data in TOML and JSON, as a profile names it and as an owner has it."""
    _, trusting = _report_folder(folder)
    toml = b'version = "0.1.0"\nalgorithm = "sha-256"\n[data]\n"aa.toml" = """\nkey = 1\n"""\n'
    document = json.dumps({"version": "0.1.0", "algorithm": "sha-384", "data": {"a": "b"}}).encode()
    (folder / "initdata.yaml").write_text("initdata: mutant\n")
    report: Words = ["owner", "report", folder / "report", *trusting, "--certs", folder / "certs", "--initdata", "{}"]
    return [
        reader
        for content in (toml, document)
        for reader in (
            Reader(content, change_text, report, frozenset({0, 1, 2})),
            Reader(content, change_text, ["check", folder / "initdata.yaml"], frozenset({0, 1})),
        )
    ]


def firmware(folder: Path) -> list[Reader]:
    """Firmware images, as the digest reads their tables."""
    image = ovmf(size=0x4000)
    common: Words = ["--firmware", "{}"]
    # A SEV launch measures no vCPUs.
    registers: dict[str, Words] = {"sev": []}
    vcpus: Words = ["--vcpus", "2", "--cpu-signature", "0xa00f11"]
    kernel: Words = ["--kernel-hash", "00" * 32, "--cmdline", "x"]
    return [
        Reader(
            image,
            change_end,
            ["owner", "digest", "--type", kind, *common, *registers.get(kind, vcpus), *more],
            frozenset({0, 2}),
        )
        for kind in ("sev", "sev-es", "sev-snp")
        for more in (Words(), kernel)
    ]


def unified_kernels(folder: Path) -> list[Reader]:
    """Unified kernel images, as the digest reads what their sections say."""
    (folder / "ovmf.fd").write_bytes(ovmf())
    profile = folder / "unified.yaml"
    boot = "boot: {kernel: mutant, cmdline_extra: x}"
    profile.write_text(f"firmware: {{image: ovmf.fd}}\nsecurity: {{type: sev, kernel_hashes: true}}\n{boot}\n")
    sections = [(".osrel", b"ID=x\nPRETTY_NAME=X\n"), (".cmdline", b"root=/dev/vda"), (".linux", kernel("x"))]
    return [Reader(uki(sections), change_bytes, ["owner", "digest", profile], frozenset({0, 2}))]


def change_end(content: bytes, random: Random) -> bytes:
    """Changes where an image has its tables."""
    end = -1100 if random.random() < 0.9 else 0
    return content[:end] + change_bytes(content[end:], random)


KINDS: dict[str, Callable[[Path], list[Reader]]] = {
    "evidences": evidences,
    "SEV certificates": sev_certificates,
    "X.509 certificates": x509_certificates,
    "reports": reports,
    "requirements": requirements,
    "lock files": locks,
    "domains": domains,
    "catalogues of images": catalogues,
    "profiles": profiles,
    "first boots": first_boots,
    "init-data": init_data,
    "firmware images": firmware,
    "unified kernel images": unified_kernels,
}
