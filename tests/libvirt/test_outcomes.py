"""Each part of a domain is carried, corrected, dropped with a reason, or reported; nothing vanishes."""

from __future__ import annotations

from typing import Any

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.libvirt.reasons import Kind
from tests.libvirt.support import AGENT, DISK, NIC, SEV, SUSE, became, domain, imported, profile_of, value

CARRIED: dict[str, list[tuple[str, Any]]] = {
    "memory.size": [
        ("<memory>1048576</memory>", 1 << 30),
        ("<memory unit='b'>1073741824</memory>", 1 << 30),
        ("<memory unit='G'>2</memory>", 2 << 30),
        ("<memory unit='GiB'>2</memory>", 2 << 30),
        ("<memory unit='GB'>2</memory>", -(-2 * 10**9 // (1 << 20)) << 20),
        ("<memory unit='KiB'>219100</memory>", 214 << 20),
    ],
    "memory.hugepages": [
        ("<memoryBacking><hugepages/></memoryBacking>", "2M"),
        ("<memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages></memoryBacking>", "2M"),
        ("<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>", "1G"),
        ("<memoryBacking><hugepages><page size='64' unit='KiB'/></hugepages></memoryBacking>", None),
    ],
    "numa.0.memory": [
        (
            "<memory>219100</memory><vcpu>2</vcpu><cpu><numa><cell id='0' cpus='0-1' memory='109550'/>"
            "<cell id='1' memory='109550'/></numa></cpu>",
            107 << 20,
        )
    ],
    "memory.prealloc": [
        ("<memoryBacking><allocation mode='immediate'/></memoryBacking>", True),
        ("<memoryBacking><allocation mode='ondemand'/></memoryBacking>", False),
    ],
    "clock": [
        ("<clock offset='localtime'/>", {"base": "localtime", "catch_up": False, "hpet": True}),
        ("<clock offset='utc'/>", {"base": "utc", "catch_up": False, "hpet": True}),
        (
            "<clock offset='absolute' start='1767225600'/>",
            {"base": "2026-01-01T00:00:00", "catch_up": False, "hpet": True},
        ),
        (
            "<clock offset='utc'><timer name='rtc' tickpolicy='catchup'/><timer name='hpet' present='no'/></clock>",
            {"base": "utc", "catch_up": True, "hpet": False},
        ),
    ],
    "watchdog": [
        (
            "<devices><watchdog model='i6300esb' action='poweroff'/></devices>",
            {"model": "i6300esb", "action": "poweroff"},
        ),
        ("<devices><watchdog model='itco'/></devices>", {"model": "itco", "action": "reset"}),
        ("<devices><watchdog model='itco' action='dump'/></devices>", None),
    ],
    "panic": [("<devices><panic model='isa'/></devices>", True), ("<devices><panic model='hyperv'/></devices>", False)],
    "fw_cfg": [
        (
            "<sysinfo type='fwcfg'><entry name='opt/a'>x,y</entry><entry name='opt/b' file='/f'/>"
            "<entry name='etc/c'>z</entry></sysinfo>",
            [{"name": "opt/a", "text": "x,y", "file": None}, {"name": "opt/b", "text": None, "file": "/f"}],
        )
    ],
    "memory.lock": [("<memoryBacking><locked/></memoryBacking>", True), ("", "auto")],
    "memory.hard_limit": [
        ("<memtune><hard_limit unit='G'>5</hard_limit></memtune>", 5 << 30),
        ("<memtune><hard_limit unit='KiB'>9007199254740991</hard_limit></memtune>", None),
    ],
    "cpu.count": [("<vcpu current='2'>4</vcpu>", 2), ("<vcpu>4</vcpu>", 4)],
    "cpu.pin": [
        (
            "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='0-3,^1'/><vcpupin vcpu='1' cpuset='5'/></cputune>",
            ["0,2-3", "5"],
        ),
        ("<vcpu cpuset='4-5'>2</vcpu><cputune><vcpupin vcpu='1' cpuset='5'/></cputune>", ["4-5", "5"]),
        ("<vcpu>2</vcpu><cputune><vcpupin vcpu='1' cpuset='5'/></cputune>", None),
        ("<vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='a'/></cputune>", None),
    ],
    "cpu.maxcpus": [("<vcpu current='2'>4</vcpu>", 4), ("<vcpu>4</vcpu>", None)],
    "cpu.dies": [("<vcpu>8</vcpu><cpu><topology sockets='1' dies='2' cores='2' threads='2'/></cpu>", 2)],
    "iommu.type": [
        ("<devices><iommu model='intel'><driver intremap='on' eim='on'/></iommu></devices>", "intel"),
        ("<devices><iommu model='virtio'/></devices>", "virtio"),
        ("<devices><iommu model='intel'/></devices>" + SEV, "auto"),
    ],
    "iommu.caching_mode": [
        ("<devices><iommu model='intel'><driver caching_mode='on' dma_translation='off'/></iommu></devices>", True),
    ],
    "iommu.translation": [
        ("<devices><iommu model='intel'><driver caching_mode='on' dma_translation='off'/></iommu></devices>", False),
    ],
    "cpu.sockets": [
        ("<vcpu>4</vcpu>", 4),
        ("<vcpu>4</vcpu><cpu><topology sockets='1' cores='2' threads='2'/></cpu>", 1),
        ("<vcpu current='2'>4</vcpu><cpu><topology sockets='1' cores='2' threads='2'/></cpu>", 1),
    ],
    "cpu.model": [
        ("<cpu mode='custom'><model fallback='allow'>EPYC-Milan</model></cpu>", "EPYC-Milan"),
        ("<cpu mode='host-passthrough' migratable='on'/>", "host"),
        ("<cpu mode='maximum'/>", "max"),
        ("<cpu mode='host-model'/>", "host"),
        ("<cpu mode='host-model'/>" + SEV, "auto"),
    ],
    "cpu.features": [
        (
            "<cpu><feature policy='disable' name='lahf_lm'/><feature policy='require' name='x2apic'/></cpu>",
            ["lahf-lm=off", "x2apic=on"],
        ),
        ("<features><kvm><hidden state='on'/></kvm><pmu state='off'/></features>", ["kvm=off", "pmu=off"]),
        (
            "<features><hyperv><relaxed state='on'/><spinlocks state='on' retries='8191'/><vapic state='off'/>"
            "</hyperv></features>",
            ["hv-relaxed=on", "hv-spinlocks=0x1fff"],
        ),
        ("<cpu><maxphysaddr mode='emulate' bits='43'/></cpu>", ["phys-bits=43"]),
        ("<clock offset='utc'><timer name='kvmclock' present='no'/></clock>", ["kvmclock=off"]),
    ],
    "guest_agent": [
        (f"<devices>{AGENT}</devices>", True),
        (f"<devices>{AGENT}</devices>" + SEV, False),
        (f"<devices>{AGENT.replace('agent.0', 'agent.1')}</devices>", False),
    ],
    "on_crash": [
        ("<on_crash>destroy</on_crash>", "stop"),
        ("<on_crash>restart</on_crash>", "relaunch"),
        ("<on_crash>preserve</on_crash>", "keep"),
    ],
    "on_reboot": [("<on_reboot>destroy</on_reboot>", "stop"), ("<on_reboot>restart</on_reboot>", "relaunch")],
    "uuid": [
        ("<uuid>c7a5fdbdedaf9455926ad65c16db1809</uuid>", "c7a5fdbd-edaf-9455-926a-d65c16db1809"),
        ("<uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>", "c7a5fdbd-edaf-9455-926a-d65c16db1809"),
    ],
    "security.type": [
        (SEV, "sev"),
        ("<launchSecurity type='sev'><policy>37</policy></launchSecurity>", "sev-es"),
        ("<launchSecurity type='sev-snp'><policy>0x30000</policy></launchSecurity>", "sev-snp"),
    ],
    "security.policy": [("<launchSecurity type='sev'><policy>33</policy></launchSecurity>", 0x33)],
    "security.vcek_disabled": [
        ("<launchSecurity type='sev-snp' vcek='no'><policy>0x30000</policy></launchSecurity>", True),
        ("<launchSecurity type='sev-snp' vcek='yes'><policy>0x30000</policy></launchSecurity>", False),
    ],
    "qemu.extra_args": [
        ("<clock offset='localtime'/>", []),
        ("<pm><suspend-to-mem enabled='no'/></pm>", ["-global", "ICH9-LPC.disable_s3=1"]),
    ],
}


@pytest.mark.parametrize(
    ("key", "xml", "wanted"), [(key, xml, wanted) for key, cases in CARRIED.items() for xml, wanted in cases]
)
def test_what_is_carried(key: str, xml: str, wanted: object) -> None:
    text = domain(before=xml)
    for name in ("memory", "vcpu"):
        if f"<{name}>" in xml or f"<{name} " in xml:
            start = text.index(f"<{name}")
            text = text[:start] + text[text.index("\n", start) :]
    assert value(text, key) == wanted


MISTAKES: list[tuple[str, str, str, str, str, str, object]] = [
    (DISK.format(""), "q35", "devices/disk", "corrected", "DMA API", "disks.0.iommu_platform", None),
    (
        DISK.format(" iommu='off'"),
        "q35",
        "devices/disk/driver@iommu",
        "corrected",
        "DMA",
        "disks.0.iommu_platform",
        None,
    ),
    (NIC.format(""), "q35", "devices/interface", "corrected", "DMA API", "networks.0.iommu_platform", None),
    ("<rng model='virtio'/>", "q35", "devices/rng", "corrected", "DMA API", "rng.iommu_platform", None),
    ("<memballoon model='virtio'/>", "q35", "devices/memballoon", "corrected", "DMA", "balloon.iommu_platform", None),
    (
        "<disk type='file'><source file='/d'/><target dev='hda' bus='ide'/></disk>",
        "q35",
        "devices/disk/target@bus",
        "corrected",
        "IDE",
        "disks.0.bus",
        "sata",
    ),
    ("", "q35", "launchSecurity", "corrected", "not <locked/>", "memory.lock", "auto"),
    ("", "pc-i440fx-7.2", "os/type@machine", "corrected", "q35", "machine", "q35"),
    ("", "pc-q35-rhel9.4.0", "os/type@machine", "carried", "", "machine", "pc-q35-rhel9.4.0"),
    ("<hostdev mode='subsystem' type='pci'/>", "q35", "devices/hostdev", "refused", "host devices", "disks", []),
    ("<interface type='hostdev'/>", "q35", "devices/interface", "refused", "host devices", "networks", []),
    (
        "<filesystem type='mount'><driver type='virtiofs'/><source dir='/s'/><target dir='t'/></filesystem>",
        "q35",
        "devices/filesystem",
        "refused",
        "encrypted",
        "shares",
        [],
    ),
]


@pytest.mark.parametrize(("devices", "machine", "element", "kind", "word", "key", "wanted"), MISTAKES)
def test_what_sev_can_not_have_is_corrected_or_refused(
    devices: str, machine: str, element: str, kind: str, word: str, key: str, wanted: object
) -> None:
    xml = domain(devices, machine=machine, before=SEV)
    result = imported(xml)
    assert any(found == kind and word in reason for found, reason in became(result, element)), became(result, element)
    assert value(xml, key) == wanted
    assert result.works == (kind != "refused")


def test_a_domain_without_uefi_gets_it_when_encrypted_and_a_warning_when_not() -> None:
    encrypted = imported(domain(before=SEV).replace(" firmware='efi'", ""))
    assert [kind for kind, reason in became(encrypted, "os") if "UEFI" in reason] == ["corrected"]
    ordinary = imported(domain().replace(" firmware='efi'", ""))
    assert [kind for kind, reason in became(ordinary, "os") if "BIOS" in reason] == ["not supported"]


SECURE = "<firmware><feature enabled='yes' name='secure-boot'/><feature enabled='{}' name='enrolled-keys'/></firmware>"


@pytest.mark.parametrize(
    ("os", "before", "wanted", "kind"),
    [
        (SECURE.format("yes"), "", True, "carried"),
        (SECURE.format("no"), "", None, "not supported"),
        (SECURE.format("yes"), SEV, True, "carried"),
        (SECURE.format("yes"), SEV.replace("0x33", "0x37"), None, "not supported"),
        (SECURE.format("yes") + "<loader type='pflash'>/c</loader>", "", None, "carried"),
        ("<firmware><feature enabled='no' name='secure-boot'/></firmware>", "", None, "carried"),
    ],
)
def test_secure_boot_is_asked_for_where_firmware_is_chosen(
    os: str, before: str, wanted: bool | None, kind: str
) -> None:
    xml = domain(os=os, before=before)
    assert profile_of(imported(xml)).firmware.secure_boot == wanted
    assert {found for found, _ in became(imported(xml), "os/firmware/feature@enabled")} & {kind}


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ("<features><smm state='off'/></features>", False),
        ("<features><smm state='on'/></features>", True),
        (f"<features><smm state='off'/></features>{SEV}", False),
        (f"<features><smm state='off'/></features>{SEV.replace('0x33', '0x37')}", True),
    ],
)
def test_smm_is_off_where_the_domain_has_it_off(before: str, wanted: bool) -> None:
    assert profile_of(imported(domain(before=before))).smm == wanted


def test_what_libvirt_has_by_default_and_sevlaunch_has_not_is_told() -> None:
    silent = imported(domain(DISK.format("") + NIC.format(""), machine="pc"))
    reasons = " ".join(reason for outcome in silent.outcomes for reason in [outcome.reason])
    for told in ("ACPI off", "VMware's port on", "TRIM is ignored"):
        assert told in reasons
    old = [outcome.element for outcome in silent.outcomes if outcome.reason.startswith("a modern virtio device")]
    assert sorted(old) == ["devices/disk", "devices/interface/model"]
    said = imported(
        domain(
            DISK.format(" discard='unmap'").replace("<disk ", "<disk model='virtio-non-transitional' "),
            machine="pc",
            before="<features><acpi/><vmport state='off'/></features>",
        )
    )
    corrected = [outcome.reason for outcome in said.outcomes if outcome.kind is Kind.CORRECTED]
    assert corrected == ["without a CPU model libvirt takes qemu64, sevlaunch cpu.model: auto"]


def test_a_transient_disk_that_can_not_be_had_stays_behind() -> None:
    xml = "<disk type='block'><source dev='/dev/vg/a'/><target dev='vda'/><transient/></disk>"
    found = imported(domain(xml))
    assert profile_of(found).disks == []
    assert any("what the guest writes would stay" in outcome.reason for outcome in found.outcomes)


FOREIGN = {
    "<domain type='lxc'><os><type>exe</type></os></domain>": ["a QEMU domain", "os type hvm"],
    "<domain type='kvm'><os><type arch='aarch64'>hvm</type></os></domain>": ["for x86_64"],
    "<domain type='kvm'><os><type>hvm</type></os><launchSecurity type='tdx'/></domain>": ["launchSecurity"],
    "<domain type='kvm'><os><type>hvm</type></os><launchSecurity/></domain>": ["launchSecurity"],
    "<domain/>": ["a QEMU domain", "os type hvm"],
}


@pytest.mark.parametrize("xml", FOREIGN)
def test_a_domain_of_another_kind_is_refused_with_every_reason(xml: str) -> None:
    with pytest.raises(ProfileError) as caught:
        imported(xml)
    problems = caught.value.problems
    assert len(problems) == len(FOREIGN[xml])
    for problem, words in zip(problems, FOREIGN[xml], strict=True):
        assert words in problem.message
        assert problem.location == "d.xml:1"


def test_why_the_loader_refuses_the_profile_has_the_line_of_the_domain() -> None:
    result = imported(domain("<interface type='user'>\n<mac address='01:00:5e:00:00:01'/></interface>"))
    [problem] = result.problems
    assert problem.path == "networks.0.mac"
    assert problem.hint == "it is line 9 of d.xml"
    assert not result.works


def test_comments_tell_where_each_value_came_from() -> None:
    result = imported(SUSE.read_bytes())
    for line in result.text.splitlines():
        if not line.startswith("#") and not line.endswith(":"):
            assert "  # line " in line
    assert "  cbitpos: 47  # line 15: launchSecurity/cbitpos\n" in result.text
    lines = SUSE.read_text().splitlines()
    assert "<cbitpos>47</cbitpos>" in lines[15 - 1]
