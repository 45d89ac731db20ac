"""Which firmware a guest gets: the image decides, the descriptor only describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import Distribution
from sevlaunch.host.firmware_facts import IGVM, FirmwareDescriptor, FirmwareImage
from sevlaunch.host.model import Host
from sevlaunch.host.ovmf import firmware_image
from sevlaunch.host.packages import install_firmware
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS
from tests.plan.debian import debian

CODE, AMDSEV, GENERAL = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/ovmf/OVMF.amdsev.fd", "/usr/share/ovmf/OVMF.fd"
DISK = "disks: [{path: /d.qcow2}]\n"
KERNEL = "boot: {kernel: /k}\n"
EARLY_SNP_PAGES = [1, 2, 3]


@pytest.fixture
def host() -> Host:
    """The recorded Milan: Debian 12 with QEMU 10.0, and the OVMF.amdsev.fd of sid."""
    return Host.load(HOSTS / "milan-qemu-10.0.json")


def plan_of(text: str, host: Host) -> Plan:
    """The plan of a profile given as text."""
    return resolve(loads("name: g\n" + text, file="test.yaml"), host)


def with_image(host: Host, image: FirmwareImage) -> Host:
    """The host whose image at that path is this one."""
    others = [one for one in host.firmware_images if one.path != image.path]
    return replace(host, firmware_images=[*others, image])


def without_amdsev(host: Host) -> Host:
    """The host without OVMF.amdsev.fd."""
    images = [one for one in host.firmware_images if one.path != AMDSEV]
    return replace(host, firmware=[one for one in host.firmware if one.device == "flash"], firmware_images=images)


def described(host: Host, descriptor: FirmwareDescriptor) -> Host:
    """The host with this descriptor alone."""
    return replace(host, firmware=[descriptor], firmware_images=[])


def flash_of(plan: Plan) -> list[str]:
    """The block devices of pflash."""
    return [argument for argument in argv(plan) if "node-name=pflash" in argument]


@pytest.mark.parametrize(
    ("security", "boots", "kind", "file"),
    [
        ("none", DISK, "pflash", CODE),
        ("sev", DISK, "pflash", CODE),
        ("sev-es", DISK, "pflash", CODE),
        ("sev-es", KERNEL, "pflash", CODE),
        ("{type: sev-es, legacy_vm_type: false}", DISK, "image", AMDSEV),
        ("sev-snp", DISK, "image", AMDSEV),
        ("{type: sev, kernel_hashes: true}", KERNEL, "image", AMDSEV),
        ("{type: sev-es, kernel_hashes: true}", KERNEL, "image", AMDSEV),
        ("{type: sev-snp, kernel_hashes: true}", KERNEL, "image", AMDSEV),
    ],
)
def test_each_guest_gets_what_it_can_boot_with(security: str, boots: str, kind: str, file: str, host: Host) -> None:
    plan = plan_of(f"security: {security}\n{boots}", host)
    assert (plan.firmware.kind, plan.firmware.code.value) == (kind, file)
    assert ("-bios" in argv(plan)) == (kind == "image")


@pytest.mark.parametrize("firmware", ["", f"firmware: {{code: {CODE}}}\n"], ids=["chosen", "named"])
def test_a_descriptor_that_says_less_than_the_image_is_a_warning(firmware: str, host: Host) -> None:
    plan = plan_of(f"security: sev-es\n{firmware}", host)
    assert plan.firmware.code.value == CODE
    (warning,) = (one for one in plan.warnings if "does not say amd-sev-es" in one)
    assert warning.endswith("the image has what it takes")
    assert not any("does not say" in one for one in plan_of(f"security: sev\n{firmware}", host).warnings)


@pytest.mark.parametrize(
    ("image", "lacking"),
    [
        (FirmwareImage(path=CODE), "it has no SEV-ES reset vector"),
        (FirmwareImage(path=CODE, error="an entry of OVMF's table has length 0"), ""),
    ],
)
def test_an_image_that_lacks_what_its_descriptor_says_is_passed_over_and_refused_by_name(
    image: FirmwareImage, lacking: str, host: Host
) -> None:
    flash = next(one for one in host.firmware if one.executable == CODE)
    boastful = replace(flash, file="/60.json", features=["amd-sev", "amd-sev-es"])
    boasting = replace(with_image(without_amdsev(host), image), firmware=[boastful])
    with pytest.raises(HostError) as caught:
        plan_of("security: sev-es\n", boasting)
    assert f"passed over: /60.json: {lacking or f'{CODE}: {image.error}'}" in str(caught.value)
    text = f"security: sev-es\nfirmware: {{code: {CODE}}}\n"
    if lacking:
        with pytest.raises(ProfileError, match=rf"test\.yaml:3:18: firmware\.code: {CODE} can't start .*: {lacking}"):
            plan_of(text, boasting)
    else:
        # What a file is that can't be read is told before the start, with all else that is missing.
        assert plan_of(text, boasting).firmware.code.value == CODE


def test_where_nobody_looked_the_descriptors_are_believed_and_what_they_do_not_say_is_a_warning(host: Host) -> None:
    unseen = replace(host, firmware_images=[])
    assert plan_of("security: sev-es\n", unseen).firmware.code.value == AMDSEV
    (warning,) = plan_of(f"security: sev-es\nfirmware: {{code: {CODE}}}\n", unseen).warnings
    assert warning.endswith("it was not looked into")
    (warning,) = plan_of("security: sev-es\nfirmware: {code: /my/CODE.fd, vars: /my/VARS.fd}\n", unseen).warnings
    assert warning == "no firmware descriptor says whether /my/CODE.fd supports sev-es, and it was not looked into"
    (warning,) = plan_of(f"security: sev-snp\n{DISK}", unseen).warnings
    assert "may be an old AmdSev build" in warning


def test_an_older_amdsev_build_is_warned_of_where_a_disk_boots_and_comes_after_one_that_is_sure_to(host: Host) -> None:
    old = FirmwareImage(path=AMDSEV, es_reset_vector=1, hashes_table=True, secret_area=True, snp_pages=EARLY_SNP_PAGES)
    aged = with_image(host, old)
    (warning,) = plan_of(f"security: sev-snp\n{DISK}", aged).warnings
    assert f"{AMDSEV} is an AmdSev build from before 2024: those from before May 2023" in warning
    (warning,) = plan_of(f"security: sev-snp\n{KERNEL}", aged).warnings
    assert "starts a kernel only if its hash is measured" in warning
    assert plan_of(f"security: {{type: sev-es, kernel_hashes: true}}\n{KERNEL}", aged).warnings == ()
    assert plan_of(f"security: sev-snp\n{DISK}", host).warnings == ()
    both = with_image(aged, FirmwareImage(path=GENERAL, es_reset_vector=1, snp_pages=EARLY_SNP_PAGES))
    for boots in (DISK, KERNEL):
        plan = plan_of(f"security: sev-snp\n{boots}", both)
        assert (plan.firmware.code.value, plan.warnings) == (GENERAL, ())


def test_an_image_that_no_descriptor_names_is_found(host: Host) -> None:
    general = FirmwareImage(path=GENERAL, es_reset_vector=1, snp_pages=EARLY_SNP_PAGES)
    plan = plan_of("security: sev-snp\n", with_image(without_amdsev(host), general))
    assert plan.firmware.code.value == GENERAL
    assert plan.firmware.code.reason.text == "a look into it; no firmware descriptor names it"
    # SNP has its own place for the hashes, beside that of SEV.
    no_page = replace(general, hashes_table=True)
    with pytest.raises(HostError, match="it has no page for the hashes of a SNP guest"):
        plan_of(
            f"security: {{type: sev-snp, kernel_hashes: true}}\n{KERNEL}", with_image(without_amdsev(host), no_page)
        )


@pytest.mark.parametrize(
    ("distribution", "guest_type", "hashes", "hint"),
    [
        (("debian", "12", ()), GuestType.SEV_ES, False, "install it: apt install ovmf"),
        (("debian", "13", ()), GuestType.SEV_SNP, False, "install it: apt install ovmf"),
        (("debian", "11", ()), GuestType.SEV_SNP, False, "take ovmf-amdsev of Debian 14 or sid"),
        (("debian", "13", ()), GuestType.SEV_SNP, True, "take ovmf-amdsev of Debian 14 or sid"),
        (("debian", "14", ()), GuestType.SEV_SNP, True, "install it: apt install ovmf-amdsev"),
        (("debian", "", ()), GuestType.SEV, True, "install it: apt install ovmf-amdsev"),
        (("ubuntu", "24.04", ("debian",)), GuestType.SEV_SNP, False, "take ovmf-amdsev of Ubuntu 26.04"),
        (("ubuntu", "26.04", ("debian",)), GuestType.SEV_SNP, False, "install it: apt install ovmf-amdsev"),
        (("ubuntu", "24.04", ("debian",)), GuestType.SEV, False, "install it: apt install ovmf"),
        (("fedora", "42", ()), GuestType.SEV_SNP, False, "dnf install edk2-ovmf, for its OVMF.amdsev.fd"),
        (("rocky", "9.6", ("rhel", "centos", "fedora")), GuestType.SEV, False, "install it: dnf install edk2-ovmf"),
        (("opensuse-tumbleweed", "20261101", ("opensuse", "suse")), GuestType.NONE, False, "zypper install qemu-ovmf"),
        (("sles", "15.7", ("suse",)), GuestType.SEV_ES, True, "for its ovmf-x86_64-sev.bin"),
        (("gentoo", "", ()), GuestType.SEV, False, "Debian, Ubuntu: ovmf; Fedora, RHEL: edk2-ovmf"),
        (("", "", ()), GuestType.SEV_SNP, True, "or name it in firmware"),
    ],
)
def test_only_packages_that_the_release_has_are_named(
    distribution: tuple[str, str, Sequence[str]], guest_type: GuestType, hashes: bool, hint: str
) -> None:
    name, version, like = distribution
    found = install_firmware(
        Distribution(id=name, version=version, like=list(like), name=f"{name} {version}"),
        guest_type,
        kernel_hashes=hashes,
    )
    assert hint in found
    assert ("ovmf-amdsev" in found) == ("ovmf-amdsev" in hint)


def test_where_nothing_fits_each_is_named_and_what_to_install(host: Host) -> None:
    with pytest.raises(HostError) as caught:
        plan_of(f"security: {{type: sev-snp, kernel_hashes: true}}\n{KERNEL}", without_amdsev(host))
    text = str(caught.value)
    assert "no UEFI firmware for a sev-snp guest is on this host" in text
    assert "60-edk2-x86_64.json: it has no SNP metadata and no table of hashes" in text
    assert "Debian GNU/Linux 12 (bookworm) has no package with it: take ovmf-amdsev of Debian 14 or sid" in text


def test_qcow2_firmware_is_opened_as_such_and_its_copy_is_one(host: Host) -> None:
    # By the names, as a host's facts of an earlier day have nothing else; by the magic, whatever the name.
    flash = next(one for one in host.firmware if one.executable == CODE)
    named = replace(flash, executable="/f/CODE.qcow2", executable_format="qcow2", nvram_template="/f/VARS.qcow2")
    code, variables = flash_of(plan_of("security: sev\n", described(host, named)))
    assert code.startswith("driver=qcow2,node-name=pflash0,read-only=on")
    assert variables.startswith("driver=qcow2,node-name=pflash1,read-only=off")
    assert variables.endswith("/VARS.qcow2")
    by_magic = replace(flash, executable="/f/CODE.fd", nvram_template="/f/VARS.fd")
    images = [FirmwareImage(path="/f/CODE.fd", format="qcow2", es_reset_vector=1), FirmwareImage(path="/f/VARS.fd")]
    host = replace(host, firmware=[by_magic], firmware_images=images)
    code, variables = flash_of(plan_of("security: sev\n", host))
    assert (code[:12], variables[:10]) == ("driver=qcow2", "driver=raw")
    # The store that is there already decides for itself.
    host = with_image(host, FirmwareImage(path="/my/NVRAM", format="qcow2"))
    _, variables = flash_of(plan_of("firmware: {code: /f/CODE.fd, vars: /f/VARS.fd, nvram: /my/NVRAM}\n", host))
    assert variables == "driver=qcow2,node-name=pflash1,read-only=off,file.driver=file,file.filename=/my/NVRAM"
    # One that could not be read tells nothing: the template does.
    host = with_image(host, FirmwareImage(path="/my/NVRAM", error="Permission denied"))
    _, variables = flash_of(plan_of("firmware: {code: /f/CODE.fd, vars: /f/V.qcow2, nvram: /my/NVRAM}\n", host))
    assert variables.startswith("driver=qcow2,node-name=pflash1")
    with pytest.raises(ProfileError, match=r"firmware\.image: /f/CODE\.fd is a qcow2 image, which"):
        plan_of("security: sev\nfirmware: {image: /f/CODE.fd}\n", host)


def test_what_bios_would_not_take_is_refused_and_passed_over(host: Host) -> None:
    # The size of Debian's OVMF_CODE_4M.fd.
    code = FirmwareImage(path="/f.fd", size=3653632, es_reset_vector=1, snp_pages=[1, 2, 3])
    with pytest.raises(
        ProfileError, match=r"/f\.fd has 3653632 bytes, and -bios takes multiples of 64 KiB .*pflash pair"
    ):
        plan_of("security: sev-snp\nfirmware: {image: /f.fd}\n", with_image(host, code))
    stateless = with_image(described(host, mapped(mode="stateless")), code)
    with pytest.raises(HostError, match=r"passed over: /50\.json: 3653632 bytes, and -bios"):
        plan_of("security: sev-snp\n", stateless)
    assert plan_of("security: sev-es\n", stateless).firmware.kind == "pflash"
    assert plan_of("security: sev-snp\n", with_image(stateless, replace(code, size=4 << 20))).firmware.kind == "image"


def mapped(**changes: object) -> FirmwareDescriptor:
    """A descriptor of a UEFI firmware for encrypted guests; ``changes``: of its fields."""
    features = ["amd-sev", "amd-sev-es", "amd-sev-snp"]
    common = FirmwareDescriptor(
        file="/50.json", device="flash", executable="/f.fd", interface_types=["uefi"], machines=["pc-q35-*"]
    )
    return replace(common, **{"features": features, **changes})


@pytest.mark.parametrize(
    ("descriptor", "security", "options"),
    [
        (mapped(mode="stateless"), "sev-es", ["driver=raw,node-name=pflash0,read-only=on"]),
        (mapped(mode="stateless"), "sev-snp", ["/f.fd"]),
        (mapped(mode="stateless", executable_format="qcow2"), "sev", ["driver=qcow2,node-name=pflash0,read-only=on"]),
        (mapped(device="memory", mode="stateless"), "sev", ["/f.fd"]),
        (mapped(mode="combined"), "none", ["driver=raw,node-name=pflash0,read-only=off"]),
    ],
)
def test_a_mapping_decides_how_qemu_gets_the_firmware(
    descriptor: FirmwareDescriptor, security: str, options: list[str], host: Host
) -> None:
    plan = plan_of(f"security: {security}\n", described(host, descriptor))
    words = argv(plan)
    bios = [words[words.index("-bios") + 1]] if "-bios" in words else []
    found = [one.partition(",file.driver")[0] for one in flash_of(plan)] + bios
    assert found == options
    if descriptor.mode == "combined":
        assert plan.firmware.vars_template == "/f.fd"
        assert "pflash1" not in " ".join(words)


@pytest.mark.parametrize(
    ("descriptor", "security", "reason"),
    [
        (mapped(device="igvm", mode="stateless"), "sev-snp", "an IGVM file: QEMU 10.1 and newer take one"),
        (mapped(features=["host-uefi-vars"], device="memory"), "none", "keeps its variables with the host (uefi-vars"),
        (mapped(mode="combined"), "sev", "code and variables in one, so that both would be measured"),
        (mapped(mode="stateless"), "none", "stateless: an ordinary guest keeps its boot entries"),
        (mapped(mode="stateless", executable_format="qcow2"), "sev-snp", "a qcow2 image, which -bios does not take"),
        (mapped(), "sev", "flash mode split without an NVRAM template"),
        (mapped(executable_format="vmdk", nvram_template="/v"), "sev", "format vmdk is not supported"),
        (mapped(nvram_template="/v"), "sev-snp", "on pflash, which a sev-snp guest can't have"),
        (
            mapped(nvram_template="/v"),
            "{type: sev-es, legacy_vm_type: false}",
            "on pflash, which a sev-es guest of KVM_SEV_INIT2 can't have",
        ),
    ],
)
def test_why_a_firmware_is_passed_over(descriptor: FirmwareDescriptor, security: str, reason: str, host: Host) -> None:
    with pytest.raises(HostError) as caught:
        plan_of(f"security: {security}\n", described(host, descriptor))
    assert f"passed over: /50.json: {reason}" in str(caught.value)


@pytest.mark.parametrize("key", ["image", "code"])
@pytest.mark.parametrize("security", ["none", "sev", "sev-es"])
def test_an_igvm_file_that_is_named_is_told_by_its_magic(key: str, security: str, tmp_path: Path, host: Host) -> None:
    (tmp_path / "f.fd").write_bytes(b"IGVM" + bytes(65532))
    image = firmware_image(tmp_path / "f.fd", "/f.fd")
    with pytest.raises(ProfileError, match=f"/f.fd is {IGVM}"):
        plan_of(f"security: {security}\nfirmware: {{{key}: /f.fd}}\n", with_image(host, image))


@pytest.mark.parametrize(
    ("suite", "security", "boots", "file"),
    [
        *((suite, kind, DISK, CODE) for suite in ("12", "13", "sid") for kind in ("none", "sev", "sev-es")),
        ("12", "sev-snp", DISK, GENERAL),
        ("13", "sev-snp", DISK, GENERAL),
        ("sid", "sev-snp", DISK, AMDSEV),
        ("12", "{type: sev-es, kernel_hashes: true}", KERNEL, ""),
        ("13", "{type: sev-snp, kernel_hashes: true}", KERNEL, ""),
        ("sid", "{type: sev-snp, kernel_hashes: true}", KERNEL, AMDSEV),
        ("sid", "{type: sev, kernel_hashes: true}", KERNEL, AMDSEV),
    ],
)
def test_debians_own_packages(suite: str, security: str, boots: str, file: str, host: Host) -> None:
    host = debian(suite, host)
    text = f"security: {security}\n{boots}"
    if file:
        assert plan_of(text, host).firmware.code.value == file
        return
    with pytest.raises(HostError, match="it has no table of hashes for kernel_hashes"):
        plan_of(text, host)
