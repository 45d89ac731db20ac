"""The plan is a pure function of profile and host, and says why for every argument."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv, choices, render
from sevlaunch.plan.formats import as_json, explain, lines, shell
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load, loads
from tests.conftest import HOSTS, PROFILES

SEV = "name: g\nsecurity: {type: sev}\n"


@pytest.fixture
def host() -> Host:
    """The recorded Milan with QEMU 10.0."""
    return Host.load(HOSTS / "milan-qemu-10.0.json")


def plan_of(text: str, host: Host) -> Plan:
    """The plan of a profile given as text."""
    return resolve(loads(text, file="test.yaml"), host)


def zeros(size: int) -> str:
    """That many zero bytes as base64."""
    return base64.b64encode(bytes(size)).decode()


def value_of(plan: Plan, option: str, containing: str = "") -> str:
    """The value of the first option of that name that contains the text."""
    for one in render(plan):
        if one.name == option and containing in " ".join(one.argv[1:]):
            return one.argv[1]
    raise AssertionError(f"no {option} with {containing!r} in {argv(plan)}")


def test_the_same_plan_gives_the_same_bytes(milan: Host) -> None:
    first = argv(resolve(load(PROFILES / "sles15-sev.yaml"), milan))
    second = argv(resolve(load(PROFILES / "sles15-sev.yaml"), milan))
    assert first == second


def test_a_saved_host_gives_the_same_plan_as_the_host_itself(milan: Host, tmp_path: Path) -> None:
    saved = tmp_path / "host.json"
    saved.write_text(milan.to_json())
    loaded = load(PROFILES / "sev-es.yaml")
    assert argv(resolve(loaded, Host.load(saved))) == argv(resolve(loaded, milan))


@pytest.mark.parametrize("name", ["sles15-sev", "sev", "sev-es", "plain", "demo"])
def test_explain_gives_a_reason_for_every_parameter(name: str, milan: Host) -> None:
    plan = resolve(load(PROFILES / f"{name}.yaml"), milan)
    for option in render(plan):
        assert option.parameters or option.reason, option
        for parameter in option.parameters:
            assert parameter.reason.text, parameter
    text = explain(plan)
    for argument in argv(plan):
        assert argument in text or shlex.quote(argument) in text
    assert len(choices(plan)) == len(render(plan))


def test_explain_names_the_line_of_the_profile_the_fact_and_the_rule(host: Host) -> None:
    text = explain(plan_of(SEV + "cpus: 3\n", host))
    assert "cpus=3  profile: test.yaml:3:7" in text
    assert "CPUID 0x8000001F EBX[5:0] = 51" in text
    assert "rule: an encrypted guest needs KVM" in text


def test_json_is_the_argument_list_and_lines_hold_the_same(host: Host) -> None:
    plan = resolve(load(PROFILES / "sles15-sev.yaml"), host)
    assert json.loads(as_json(plan)) == argv(plan)
    assert [word for line in lines(plan).splitlines() for word in shlex.split(line)] == argv(plan)


def test_the_shell_format_gives_a_shell_the_same_arguments(host: Host, base: Path) -> None:
    recorder = base / "qemu"
    recorder.write_text('#!/bin/sh\nprintf "%s\\0" "$0" "$@" > "$(dirname "$0")/seen"\n')
    recorder.chmod(0o755)
    folders = replace(host.folders, runtime=str(base / "r u n"), state=str(base / "state"))
    assert host.qemu
    here = replace(host, folders=folders, qemu=replace(host.qemu, binary=str(recorder)))
    plan = plan_of("name: it's a, test\nsecurity: none\nboot: {kernel: '/a b', cmdline: \"x='$HOME' `y`\"}\n", here)
    # The NVRAM's template is a file of the recorded host.
    script = shell(plan).replace("/usr/share/OVMF/OVMF_VARS_4M.fd", "/dev/null")
    subprocess.run(["bash", "-eu", "-c", script], check=True)
    assert (base / "seen").read_bytes().decode().split("\0")[:-1] == argv(plan)


def test_every_virtio_device_is_modern_and_behind_the_dma_api(host: Host) -> None:
    plan = plan_of(
        SEV
        + "disks: [{path: a}, {path: b, bus: virtio-scsi}]\nnetworks: [{type: user}]\nballoon: true\nvsock: auto\n"
        + "console: virtio\nvideo: virtio\n",
        host,
    )
    devices = [option.argv[1] for option in render(plan) if option.name == "-device"]
    virtio = [device for device in devices if "virtio" in device.split(",")[0] or "vhost" in device.split(",")[0]]
    assert len(virtio) == 8
    for device in virtio:
        assert "disable-legacy=on,iommu_platform=on" in device


def test_sev_memory_is_locked_or_on_huge_pages_and_snp_is_neither(host: Host) -> None:
    assert value_of(plan_of(SEV, host), "-overcommit") == "mem-lock=on"
    huge = argv(plan_of(SEV + "memory: {size: 2G, hugepages: 2M}\n", host))
    assert "-overcommit" not in huge
    assert any("hugetlb=on,hugetlbsize=2M" in argument for argument in huge)
    assert "-overcommit" not in argv(plan_of("security: sev-snp\nname: s\n", host))


def test_the_memory_encryption_option_is_the_one_that_the_qemu_does_not_deprecate(milan: Host) -> None:
    machine = value_of(plan_of(SEV, milan), "-machine")
    assert milan.qemu
    if milan.qemu.release == (11, 1):
        assert "confidential-guest-support=sev0" in machine
        assert "memory-encryption" not in machine
    else:
        assert "memory-encryption=sev0" in machine


def test_es_and_snp_get_no_smm_and_no_reset(host: Host) -> None:
    for kind in ("sev-es", "sev-snp"):
        plan = plan_of(f"name: g\nsecurity: {{type: {kind}}}\n", host)
        assert "smm=off" in value_of(plan, "-machine")
        assert "-no-reboot" in argv(plan)
    assert "kernel-irqchip=split" in value_of(plan, "-machine")


def test_es_says_how_it_is_started_where_there_are_two_ways(milan: Host) -> None:
    plan = plan_of("name: g\nsecurity: sev-es\n", milan)
    assert plan.security
    assert milan.qemu
    assert plan.security.init2 is False
    assert ("legacy-vm-type=on" in value_of(plan, "-object", "sev-guest")) == (milan.qemu.release >= (9, 1))
    # Nothing of a plain SEV guest's measurement depends on it.
    assert "legacy-vm-type" not in value_of(plan_of("name: g\nsecurity: sev\n", milan), "-object", "sev-guest")


@pytest.mark.parametrize(
    ("said", "text", "init2"), [("true", "on", False), ("auto", "auto", False), ("false", "off", True)]
)
def test_how_a_guest_is_started_is_what_the_profile_says(said: str, text: str, init2: bool) -> None:
    milan = Host.load(HOSTS / "milan-qemu-10.0.json")
    plan = plan_of(f"name: g\nsecurity: {{type: sev-es, legacy_vm_type: {said}}}\n", milan)
    assert f"legacy-vm-type={text}" in value_of(plan, "-object", "sev-guest")
    assert plan.security
    assert plan.security.init2 is init2


def test_every_property_of_the_sev_objects_can_be_set(host: Host) -> None:
    dh_cert, session = zeros(2084), zeros(128)
    sev = plan_of(
        "name: g\nsecurity:\n  type: sev\n  policy: [no-debug]\n  handle: 7\n  kernel_hashes: on\n"
        "  legacy_vm_type: on\n"
        f"  sev_device: /dev/other\n  cbitpos: 47\n  reduced_phys_bits: 2\n  dh_cert: {dh_cert}\n  session: {session}\n"
        "boot: {kernel: /k}\n",
        host,
    )
    assert value_of(sev, "-object", "sev-guest") == (
        "sev-guest,id=sev0,cbitpos=47,reduced-phys-bits=2,policy=1,"
        "dh-cert-file=/run/sevlaunch/g/dh_cert.b64,"
        "session-file=/run/sevlaunch/g/session.b64,handle=7,legacy-vm-type=on,kernel-hashes=on,sev-device=/dev/other"
    )
    assert sev.security
    assert [file.text for file in sev.security.files] == [dh_cert, session]
    block, auth, data, gosvw = zeros(96), zeros(4096), zeros(32), zeros(16)
    snp = plan_of(
        f"name: g\nsecurity:\n  type: sev-snp\n  policy: 0x30000\n  id_block: {block}\n  id_auth: {auth}\n"
        f"  host_data: {data}\n  guest_visible_workarounds: {gosvw}\n  author_key_enabled: on\n  vcek_disabled: on\n"
        "  kernel_hashes: on\nboot: {kernel: /k}\n",
        host,
    )
    assert value_of(snp, "-object", "sev-snp-guest") == (
        "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=196608,"
        f"guest-visible-workarounds={gosvw},id-block={block},id-auth={auth},host-data={data},"
        "author-key-enabled=on,vcek-disabled=on,kernel-hashes=on"
    )
    assert host.qemu
    named = {part.split("=")[0] for plan in (sev, snp) for part in value_of(plan, "-object", "sev").split(",")[2:]}
    assert {name for names in host.qemu.objects.values() for name in names} == named


def test_what_a_qemu_lacks_is_refused_with_the_version_that_has_it() -> None:
    old = Host.load(HOSTS / "milan-qemu-7.2.json")
    for text, lacking in (
        ("security: sev-snp", "sev-snp-guest, which came with QEMU 9.1"),
        ("security: {type: sev, legacy_vm_type: on}", "legacy-vm-type"),
        ("machine: pc-q35-10.0", "no machine 'pc-q35-10.0'"),
        ("cpu: {model: EPYC-Turin}", "no CPU model 'EPYC-Turin'"),
    ):
        with pytest.raises(HostError, match=lacking):
            plan_of(f"name: g\n{text}\n", old)


def test_locking_over_the_limit_is_refused_with_the_number_and_three_ways(host: Host) -> None:
    memory = replace(host.memory, can_raise_memlock=False)
    with pytest.raises(HostError) as caught:
        plan_of(SEV + "memory: 4G\n", replace(host, memory=memory))
    text = str(caught.value)
    assert "4284 MiB" in text
    for way in ("limits.conf", "LimitMEMLOCK=4492099584", "hugepages"):
        assert way in text


def test_without_kvm_that_runs_firmware_an_ordinary_guest_gets_tcg(host: Host) -> None:
    assert value_of(plan_of("name: g\n", host), "-accel") == "kvm"
    paravirtual = replace(host, kvm=replace(host.kvm, module="kvm_pvm"))
    plan = plan_of("name: g\n", paravirtual)
    assert plan.machine.accel.value == "tcg"
    assert "kvm_pvm can't run firmware" in plan.machine.accel.reason.text


def test_a_path_too_long_for_a_socket_is_refused_before_anything_starts(host: Host) -> None:
    folders = replace(host.folders, runtime="/" + "x" * 100)
    with pytest.raises(ProfileError, match="at most 107"):
        plan_of("name: g\n", replace(host, folders=folders))


def test_names_that_are_derived_differ_between_guests_and_stay_the_same(host: Host) -> None:
    first = plan_of("name: a\nnetworks: [{type: user}, {type: user}]\nvsock: auto\n", host)
    second = plan_of("name: b\nnetworks: [{type: user}, {type: user}]\nvsock: auto\n", host)
    again = plan_of("name: a\nnetworks: [{type: user}, {type: user}]\nvsock: auto\n", host)
    assert argv(first) == argv(again)

    def derived(plan: Plan) -> list[str]:
        values = [parameter for option in render(plan) for parameter in option.parameters]
        return [parameter.value for parameter in values if parameter.key in ("mac", "guest-cid")]

    assert len(set(derived(first) + derived(second))) == 6
