"""What is refused for an encrypted guest, what contradicts itself, and the neighbours that are fine."""

from __future__ import annotations

import base64

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.profile.loader import loads

SEV, ES, SNP, NONE = (
    "security: {type: sev}",
    "security: {type: sev-es}",
    "security: {type: sev-snp}",
    "security: none",
)


def zeros(size: int) -> str:
    """That many zero bytes as base64."""
    return base64.b64encode(bytes(size)).decode()


def broken(*lines: str) -> list[tuple[str, str]]:
    """Path and message of every problem of a profile with these lines."""
    try:
        loads("\n".join(("name: g", *lines)) + "\n", file="p.yaml")
    except ProfileError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


# A line of a profile, the path to blame, part of the message.
ENCRYPTED = [
    ("machine: pc", "machine", "needs a q35 machine, found 'pc': use q35"),
    ("machine: pc-i440fx-7.2", "machine", "needs a q35 machine"),
    ("machine: microvm", "machine", "needs a q35 machine"),
    ("accel: tcg", "accel", "needs KVM"),
    ("disks: [{path: a, bus: ide}]", "disks.0.bus", "can't have IDE disks"),
    ("iommu_platform: false", "iommu_platform", "needs the DMA API"),
    ("disks: [{path: a, iommu_platform: false}]", "disks.0.iommu_platform", "needs the DMA API"),
    ("networks: [{type: user, iommu_platform: off}]", "networks.0.iommu_platform", "needs the DMA API"),
    ("networks: [{type: tap, interface: t, iommu_platform: no}]", "networks.0.iommu_platform", "needs the DMA API"),
    ("rng: {iommu_platform: false}", "rng.iommu_platform", "needs the DMA API"),
    ("balloon: {iommu_platform: false}", "balloon.iommu_platform", "needs the DMA API"),
    ("shares: [{path: /s, tag: t}]", "shares.0", "use a read-only disk that is made of it"),
]
# What those become when they are right.
ENCRYPTED_FINE = [
    "machine: q35",
    "machine: pc-q35-7.2",
    "machine: pc-q35-10.0.1",
    "accel: kvm",
    "disks: [{path: a, bus: virtio-scsi}, {path: b, bus: virtio-blk, iommu_platform: true}]",
    "disks: [{path: b}, {path: a, bus: sata}, {path: c, bus: sata, cdrom: true}, {path: d, bus: nvme}]",
    "iommu_platform: true",
    "networks: [{type: user, iommu_platform: true}]",
    "rng: {iommu_platform: true}",
    "rng: false",
    "balloon: {iommu_platform: true}",
]
# What those have that can lock their memory, or back it with huge pages.
LOCKED_FINE = ["memory: {size: 1G, lock: true}", "memory: {size: 1G, lock: false, hugepages: 2M}"]


@pytest.mark.parametrize("security", [SEV, ES, SNP])
@pytest.mark.parametrize(("line", "path", "message"), ENCRYPTED, ids=[line for line, _, _ in ENCRYPTED])
def test_an_encrypted_guest_can_not_have_it(line: str, path: str, message: str, security: str) -> None:
    ((found_path, found_message),) = broken(security, line)
    assert found_path == path
    assert message in found_message


@pytest.mark.parametrize("security", [SEV, ES, NONE])
@pytest.mark.parametrize("line", LOCKED_FINE)
def test_memory_is_locked_or_on_huge_pages(line: str, security: str) -> None:
    assert broken(security, line) == []


@pytest.mark.parametrize("security", [SEV, ES, SNP, NONE])
@pytest.mark.parametrize("line", ENCRYPTED_FINE)
def test_its_neighbour_is_fine(line: str, security: str) -> None:
    assert broken(security, line) == []


@pytest.mark.parametrize("line", [line for line, _, _ in ENCRYPTED if "bus: ide" not in line and "microvm" not in line])
def test_without_encryption_it_is_fine(line: str) -> None:
    assert broken(NONE, line) == []


def test_an_ide_disk_without_encryption_needs_a_machine_with_ide() -> None:
    assert broken("machine: pc-i440fx-7.2", "disks: [{path: a, bus: ide}]") == []
    assert broken("disks: [{path: a, bus: ide}]") == [
        ("disks.0.bus", "q35 has no IDE controller: use virtio-blk, virtio-scsi, nvme or sata")
    ]


# Lines, the path to blame, part of the message; then lines beside it that are fine.
SECURITY = [
    ([f"{SEV}", "memory: {lock: false}"], "memory.lock", "must not be swapped", [SNP, "memory: {lock: false}"]),
    ([f"{ES}", "memory: {lock: false}"], "memory.lock", "must not be swapped", [ES, "memory: {hugepages: 1G}"]),
    (
        ["security: {type: sev-es, policy: 0x33}"],
        "security.policy",
        "needs the policy bit es (bit 2), found 0x33: use 0x37",
        ["security: {type: sev-es, policy: 0x37}"],
    ),
    (
        ["security: {type: sev, policy: 0x37}"],
        "security.policy",
        "the type is sev: use type sev-es, or policy 0x33",
        ["security: {type: sev, policy: 0x33}"],
    ),
    (
        ["security: {type: sev, policy: 0x40}"],
        "security.policy",
        "sets reserved bit 6, which must be 0",
        ["security: {type: sev, policy: 0x20}"],
    ),
    (
        ["security: {type: sev-snp, policy: 0x10000}"],
        "security.policy",
        "lacks bit 17, which must be 1: use 0x30000",
        ["security: {type: sev-snp, policy: 0x30000}"],
    ),
    (
        [f"security: {{type: sev, session: {zeros(128)}}}"],
        "security.session",
        "found no dh_cert",
        [f"security: {{type: sev, session: {zeros(128)}, dh_cert: {zeros(2084)}}}"],
    ),
    (
        [f"security: {{type: sev, dh_cert: {zeros(2084)}}}"],
        "security.dh_cert",
        "found no session",
        [f"security: {{type: sev-es, session: {zeros(128)}, dh_cert: {zeros(2084)}}}"],
    ),
    (
        ["security: {type: sev, handle: 5}"],
        "security.handle",
        "needs a policy without no-key-sharing",
        ["security: {type: sev, handle: 5, policy: [no-debug]}"],
    ),
    ([SNP, "firmware: {code: /c, vars: /v}"], "firmware.code", "can't have pflash", [SNP, "firmware: {image: /i}"]),
    ([SNP, "firmware: {code: /c}"], "firmware.code", "can't have pflash", [SEV, "firmware: {code: /c, vars: /v}"]),
    (
        ["security: {type: sev-es, legacy_vm_type: false}", "firmware: {code: /c}"],
        "firmware.code",
        "a sev-es guest with legacy_vm_type: false can't have pflash",
        ["security: {type: sev, legacy_vm_type: false}", "firmware: {code: /c}"],
    ),
    (
        [f"security: {{type: sev-snp, id_auth: {zeros(4096)}}}"],
        "security.id_auth",
        "there is none",
        [f"security: {{type: sev-snp, id_auth: {zeros(4096)}, id_block: {zeros(96)}}}"],
    ),
    (
        [f"security: {{type: sev-snp, id_block: {zeros(96)}}}"],
        "security.id_block",
        "needs id_auth",
        [f"security: {{type: sev-snp, id_auth: {zeros(4096)}, id_block: {zeros(96)}}}"],
    ),
    (
        ["security: {type: sev-snp, author_key_enabled: true}"],
        "security.author_key_enabled",
        "stands in id_auth",
        [
            f"security: {{type: sev-snp, author_key_enabled: true, id_auth: {zeros(4096)}, id_block: {zeros(96)}}}",
        ],
    ),
    (
        ["security: {type: sev, kernel_hashes: true}"],
        "security.kernel_hashes",
        "needs boot.kernel",
        ["security: {type: sev, kernel_hashes: true}", "boot: {kernel: /k}"],
    ),
    (
        ["security: {type: sev-snp, kernel_hashes: true}"],
        "security.kernel_hashes",
        "needs boot.kernel",
        ["security: {type: sev-snp, kernel_hashes: false}"],
    ),
]
CONSISTENCY = [
    ("firmware: {image: /i, code: /c}", "firmware.image", "image is stateless", "firmware: {image: /i}"),
    ("firmware: {vars: /v}", "firmware", "need code", "firmware: {code: /c, vars: /v}"),
    ("boot: {initrd: /i}", "boot.initrd", "needs boot.kernel", "boot: {kernel: /k, initrd: /i}"),
    ("boot: {cmdline: quiet}", "boot.cmdline", "needs boot.kernel", "boot: {kernel: /k, cmdline: quiet}"),
    ("boot: {cmdline: ''}", "boot.cmdline", "needs boot.kernel", "boot: {kernel: /k, cmdline: ''}"),
    ("video: {type: std, ram: 64M}", "video.ram", "is for qxl video", "video: {type: qxl, ram: 64M}"),
    ("video: {type: virtio, vram: 64M}", "video.vram", "is for qxl video", "video: {type: std, vram: 64M}"),
    ("video: {type: qxl, vram: 512K}", "video.vram", "at least 1M", "video: {type: qxl, vram: 1M}"),
    ("video: {type: qxl, vgamem: 1500K}", "video.vgamem", "whole MiB", "video: {type: qxl, vgamem: 16384K}"),
    ("memory: 1025K", "memory.size", "wanted whole MiB", "memory: 1024K"),
    ("memory: {size: 3M, hugepages: 2M}", "memory.hugepages", "no multiple of 2M", "memory: {size: 4M, hugepages: 2M}"),
    ("memory: {size: 1025M, hugepages: 1G}", "memory.hugepages", "no multiple", "memory: {size: 2G, hugepages: 1G}"),
    (
        "shares: [{path: /a, tag: t}, {path: /b, tag: t}]",
        "shares.1.tag",
        "two shares have the tag 't'",
        "shares: [{path: /a, tag: t}, {path: /b, tag: u}]",
    ),
    (
        "disks: [{path: a, bus: sata, read_only: true}]",
        "disks.0.read_only",
        "can't be read-only",
        "disks: [{path: a, bus: sata, read_only: true, cdrom: true}]",
    ),
    (
        "disks: [{path: a, cdrom: true}]",
        "disks.0.cdrom",
        "has no CD-ROM drives",
        "disks: [{path: a, cdrom: true, bus: virtio-scsi}]",
    ),
    (
        "disks: [{path: a}, {path: ./b/../a}, {path: ./a}]",
        "disks.2.path",
        "stands in the list twice",
        "disks: [{path: a, read_only: true}, {path: a, read_only: true}]",
    ),
    (
        "networks: [{type: user, forward: [tcp:1:1, tcp:1:2]}]",
        "networks.0.forward.1",
        "forwarded twice",
        "networks: [{type: user, forward: [tcp:1:1, udp:1:1, tcp:2:1]}]",
    ),
    (
        "networks: [{type: user, forward: [tcp:1:1]}, {type: passt, forward: [tcp:1:2]}]",
        "networks.1.forward.0",
        "forwarded twice",
        "networks: [{type: user, forward: [tcp:1:1]}, {type: passt, forward: [tcp:2:1]}]",
    ),
    (
        "networks: [{type: user, ssh: 2222, forward: [tcp:127.0.0.1:2222:80]}]",
        "networks.0.forward.0",
        "forwarded twice",
        "networks: [{type: user, ssh: auto, forward: [tcp:0:22, tcp:127.0.0.1:0:22, udp:0:22, tcp:0.0.0.0:2222:80]}]",
    ),
    (
        "networks: [{type: user, ssh: auto}, {type: passt, ssh: 2222}]",
        "networks.1.ssh",
        "another network has the port for SSH already",
        "networks: [{type: user}, {type: passt, ssh: 2222}]",
    ),
    (
        "networks: [{type: passt, ssh: auto}]",
        "networks.0.ssh",
        "passt does not tell which port it took",
        "networks: [{type: passt, ssh: 2222}]",
    ),
    (
        "networks: [{type: passt, forward: [tcp:0:80]}]",
        "networks.0.forward.0",
        "passt does not tell which port it took",
        "networks: [{type: passt, forward: [tcp:80:80]}]",
    ),
    ("boot: {order: [disk0]}", "boot.order.0", "there is no disk0; the profile has no disks", "boot: {order: []}"),
    (
        "{disks: [{path: a}], boot: {order: [disk0, disk0]}}",
        "boot.order.1",
        "stands in the order twice",
        "{disks: [{path: a}], networks: [{type: user}], boot: {order: [net0, disk0]}}",
    ),
    ("cpu: {count: 4, cores: 3}", "cpu.cores", "3 cores makes 3", "cpu: {count: 4, cores: 2}"),
    (
        "cpu: {count: 4, sockets: 1, cores: 1, threads: 2}",
        "cpu.sockets",
        "1 sockets x 1 cores x 2 threads makes 2",
        "cpu: {count: 4, sockets: 1, cores: 2, threads: 2}",
    ),
]


@pytest.mark.parametrize(("lines", "path", "message", "fine"), SECURITY, ids=[entry[1] for entry in SECURITY])
def test_a_rule_about_the_security_fires_and_its_neighbour_does_not(
    lines: list[str], path: str, message: str, fine: list[str]
) -> None:
    ((found_path, found_message),) = broken(*lines)
    assert found_path == path
    assert message in found_message
    assert broken(*fine) == []


@pytest.mark.parametrize(("line", "path", "message", "fine"), CONSISTENCY, ids=[entry[0] for entry in CONSISTENCY])
def test_a_rule_about_contradictions_fires_and_its_neighbour_does_not(
    line: str, path: str, message: str, fine: str
) -> None:
    def found(text: str) -> list[tuple[str, str]]:
        # A line in braces is a whole profile.
        try:
            loads(f"name: g\n{text}\n" if not text.startswith("{") else text, file="p.yaml")
        except ProfileError as error:
            return [(problem.path, problem.message) for problem in error.problems]
        return []

    ((found_path, found_message),) = found(line)
    assert found_path == path
    assert message in found_message
    assert found(fine) == []


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("cpu: {count: many, cores: 4}", "cpu.count"),
        ("boot: {kernel: 5, initrd: /i, cmdline: quiet}", "boot.kernel"),
        (f"security: {{type: sev, session: /no/file, dh_cert: {zeros(2084)}}}", "security.session"),
        (f"security: {{type: sev-snp, id_auth: x, id_block: {zeros(96)}}}", "security.id_auth"),
        ("security: {type: sev-snp, id_auth: x, author_key_enabled: true}", "security.id_auth"),
        ("security: {type: sev, kernel_hashes: true}\nboot: {kernel: 5}", "boot.kernel"),
        ("security: {type: sev}\nmemory: {lock: false, hugepages: 3M}", "memory.hugepages"),
        ("security: {type: sev, handle: 5, policy: [no-dbug]}", "security.policy"),
        ("security: {type: svm}\ndisks: [{path: a, bus: ide}]", "security.type"),
        ("disks: 5\nboot: {order: [disk0]}", "disks"),
        ("networks: 5\nboot: {order: [net0]}", "networks"),
        ("firmware: {code: 5, vars: /v}", "firmware.code"),
        ("video: {type: vga, vram: 64M}", "video.type"),
        ("memory: {size: 4Q, hugepages: 1G}", "memory.size"),
        ("disks: [{path: a, bus: scsi, cdrom: true}]", "disks.0.bus"),
        ("disks: [{path: a, bus: sata, read_only: true, cdrom: 5}]", "disks.0.cdrom"),
        ("disks: [{path: a, read_only: true}, {path: a, read_only: 5}]", "disks.1.read_only"),
        ("shares: [{path: /a, tag: 5}, {path: /b, tag: tag}]", "shares.0.tag"),
    ],
)
def test_a_rule_is_silent_where_a_value_that_decides_is_wrong_itself(line: str, path: str) -> None:
    assert [found for found, _ in broken(*line.splitlines())] == [path]
