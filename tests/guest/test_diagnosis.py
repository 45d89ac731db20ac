"""Each hint is checked against lines that QEMU printed: published ones, and ones that the QEMUs here give."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sevlaunch.guest.diagnosis import SIGNALS, hint_for
from sevlaunch.guest.known_failures import KNOWN
from sevlaunch.guest.sev_failures import EXACT, SEV
from tests.conftest import VERSIONS, Command, qemu_binary_of

QEMU = "qemu-system-x86_64: "

# What people published of launches that failed on EPYC hosts, and words of the hint for it. The first line that QEMU
# prints is seldom the one that tells.
PUBLISHED: dict[str, tuple[list[str], str]] = {
    "NVIDIA/nvtrust 91": (
        [
            QEMU + "sev_snp_launch_update: SNP_LAUNCH_UPDATE ret=-5 fw_error=22 'Invalid parameter'",
            QEMU + "SEV-SNP: CPUID validation failed for function 0x8000001d, index: 0x3.",
            "provided: eax:0x000bc163, ebx: 0x03c0003f, ecx: 0x00007fff, edx: 0x00000006",
            "expected: eax:0x000bc163, ebx: 0x03c0003f, ecx: 0x00007fff, edx: 0x00000002",
            QEMU + "SEV-SNP: failed update CPUID page",
            QEMU + "snp_populate_metadata_pages: Failed to add metadata page gpa 0x80e000+1000 type 3",
        ],
        "leave cpu.model at auto or use EPYC-v4",
    ),
    "AMDESE/AMDSEV 223": (
        [
            QEMU + "sev_snp_launch_start: SNP_LAUNCH_START ret=-22 fw_error=0 ''",
            QEMU + "sev_common_kvm_init: failed to create encryption context",
            QEMU + "failed to initialize kvm: Operation not permitted",
        ],
        "KVM does not take the guest policy: before Linux 6.17 it wants smt",
    ),
    "AMDESE/AMDSEV 216": (
        [
            QEMU + "sev_snp_launch_start: SNP_LAUNCH_START ret=-25 fw_error=0 ''",
            QEMU + "sev_kvm_init: failed to create encryption context",
            QEMU + "failed to initialize kvm: Operation not permitted",
        ],
        "kernel and QEMU do not mean the same by SNP",
    ),
    "AMDESE/AMDSEV 195": (
        [QEMU + "sev_snp_launch_finish: SNP_LAUNCH_FINISH ret=-5 fw_error=11 'Bad measurement'"],
        "the secure processor answered BAD_MEASUREMENT (11)",
    ),
    "sev_ram_block_added() and a limit on locked memory": (
        [
            QEMU + "sev_ram_block_added: failed to register region (0x7f1ec7e00000+0x100000000) error "
            "'Cannot allocate memory'",
        ],
        "the limit on locked memory is too low",
    ),
    "sev_launch_update_data() and a limit on locked memory": (
        [
            QEMU + "sev_launch_update_data: LAUNCH_UPDATE ret=-12 fw_error=0 ''",
            QEMU + "failed to encrypt pflash rom",
        ],
        "the limit on locked memory is too low",
    ),
    "sev_launch_start() and another session": (
        [
            QEMU + "sev_launch_start: LAUNCH_START ret=1 fw_error=11 'Bad measurement'",
            QEMU + "sev_kvm_init: failed to create encryption context",
            QEMU + "failed to initialize kvm: Operation not permitted",
        ],
        "the secure processor answered BAD_MEASUREMENT (11)",
    ),
    "SEV_PLATFORM_STATUS with a code": (
        [QEMU + "sev_common_kvm_init: failed to get platform status ret=-1 fw_error='1: Platform state is invalid'"],
        "the secure processor answered INVALID_PLATFORM_STATE (1)",
    ),
    "asterinas/asterinas 2980": (
        [
            QEMU + "error: failed to set MSR 0x10a to 0x69",
            "qemu: ../target/i386/kvm/kvm.c:3870: kvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.",
        ],
        "add arch-capabilities=off to cpu.features",
    ),
    "kubevirt/kubevirt 5068": (
        [
            QEMU + "error: failed to set MSR 0x48e to 0xfff9fffe04006172",
            QEMU + "target/i386/kvm.c:2713: kvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.",
        ],
        "does not take a register that the CPU model brings",
    ),
    "KVM without SEV": (
        [
            QEMU + "sev_common_kvm_init: failed to initialize ret=-22 fw_error=0 ''",
            QEMU + "failed to initialize kvm: Operation not permitted",
        ],
        "KVM has no SEV here",
    ),
    "SNP's private memory and little of it free": (
        [QEMU + "sev_snp_launch_update: SNP_LAUNCH_UPDATE ret=-12 fw_error=0 ''"],
        "there is not enough free memory",
    ),
    "too many entries of CPUID": (
        [QEMU + "SEV-SNP: CPUID entry count (66) exceeds max (64)", QEMU + "SEV-SNP: failed update CPUID page"],
        "leave cpu.model at auto or use EPYC-v4",
    ),
    "no ASID is free": (
        [
            QEMU + "sev_common_kvm_init: failed to initialize ret=-16 fw_error=0 ''",
            QEMU + "failed to initialize kvm: Operation not permitted",
        ],
        "no ASID is free",
    ),
    "a session that is no base64": (
        [
            QEMU + "SEV: Failed to read '/run/sevlaunch/g/session.b64' (Base64 data 'x' is not valid)",
            QEMU + "sev_common_kvm_init: failed to create encryption context",
            QEMU + "failed to initialize kvm: Operation not permitted",
        ],
        "name the files again in security.dh_cert",
    ),
    "no private memory": (
        [QEMU + "Error creating KVM guest_memfd: Invalid argument", QEMU + "cannot set up guest memory 'ram0'"],
        "KVM has no SNP",
    ),
    "a secret for firmware without a place for it": (
        ["SEV: no secret area found in OVMF, gpa must be specified."],
        "no area for secrets",
    ),
    "a secret that comes too late": (["SEV: Not in correct state. (LSECRET) 1"], "between launch and run"),
    "a guest that ended itself, GHCB": ([QEMU + "SEV termination (reason set: 0 code: 1)"], "GHCB protocol"),
    "a guest that ended itself, SNP": ([QEMU + "SEV termination (reason set: 0 code: 2)"], "a feature of SNP"),
    "a guest that ended itself, Linux": ([QEMU + "SEV termination (reason set: 1 code: 4)"], "what it printed last"),
    "another hypervisor": (
        [
            "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy",
            QEMU + "failed to initialize kvm: Device or resource busy",
        ],
        "another hypervisor",
    ),
    "another hypervisor, of a newer QEMU": (
        [
            QEMU + "-accel kvm: ioctl(KVM_CREATE_VM) failed: Device or resource busy",
        ],
        "another hypervisor",
    ),
    "more vCPUs than KVM has": (
        [
            QEMU + "-accel kvm: Number of SMP cpus requested (5000) exceeds the maximum cpus supported by KVM (4096)",
        ],
        "lower cpu.count",
    ),
    "an instruction of an encrypted guest": (["KVM internal error. Suberror: 1"], "not made for SEV"),
    "no call of the firmware": (
        [QEMU + "sev_snp_launch_start: SNP_LAUNCH_START ret=-22 fw_error=-1 'unknown error'"],
        "KVM does not take the guest policy",
    ),
    "SEV-ES without ASIDs": (
        [QEMU + "sev_common_kvm_init: guest policy requires SEV-ES, but host SEV-ES support unavailable"],
        "SEV-ES is off in kvm_amd",
    ),
    "pflash with SNP": (
        [QEMU + "pflash with kvm requires KVM readonly memory support"],
        "use firmware.image with a stateless image",
    ),
    "a general OVMF with SNP": (
        [QEMU + "snp_populate_metadata_pages: Failed to locate SEV metadata header"],
        "no SNP metadata",
    ),
    "an OVMF without SEV-ES": ([QEMU + "SEV-ES reset address is zero"], "no SEV-ES reset vector"),
    "kernel hashes": (
        [QEMU + "SEV: kernel specified but guest firmware has no hashes table GUID"],
        "no table of hashes for kernel_hashes",
    ),
    "legacy-vm-type=off before Linux 6.10": (
        [QEMU + "SEV: host kernel does not support requested KVM_X86_SEV_ES_VM VM type. To allow use of the legacy"],
        "leave security.legacy_vm_type out",
    ),
    "a reboot of a SEV-ES guest": ([QEMU + "cpus are not resettable, terminating"], "before QEMU 11.0 a reboot"),
    "a tap that another guest has": (
        [QEMU + "-netdev tap,id=net0,ifname=tap0: could not configure /dev/net/tun (tap0): Device or resource busy"],
        "give each guest its own",
    ),
    "a tap of somebody else": (
        [QEMU + "-netdev tap,id=net0,ifname=tap0: could not configure /dev/net/tun (tap0): Operation not permitted"],
        "the tap interface needs to exist",
    ),
    "a context ID that another guest has": (
        [QEMU + "-device vhost-vsock-pci,guest-cid=7: vhost-vsock: unable to set guest cid: Address already in use"],
        "the vsock context ID is in use",
    ),
    "a bridge that is not allowed": (
        ["access denied by acl file", QEMU + "-netdev bridge,id=net0,br=br0: bridge helper failed"],
        "/etc/qemu/bridge.conf",
    ),
}


@pytest.mark.parametrize("what", PUBLISHED)
def test_a_published_failure_has_its_hint(what: str) -> None:
    lines, words = PUBLISHED[what]
    assert words in hint_for(lines)
    # Neither an exit code nor a signal takes its place.
    assert words in hint_for(lines, 1)
    assert words in hint_for(lines, -signal.SIGABRT)


def test_how_qemu_ended_counts_where_it_says_nothing() -> None:
    hints = [hint_for([], code) for code in SIGNALS]
    assert all(hints)
    assert len(set(hints)) >= len(hints) - 1
    assert hint_for([], 1) == hint_for([]) == hint_for(["something new"]) == ""
    assert hint_for(["something new"], -signal.SIGSYS).startswith("QEMU's sandbox stopped it")


def test_the_sandbox_is_named_when_it_ended_a_start(sevlaunch: Command) -> None:
    file = sevlaunch.base / "qemu"
    real = qemu_binary_of("10.0")
    file.write_text(f'#!/bin/sh\n[ "$2" = none ] && exec {real} "$@"\nkill -SYS $$\n')
    file.chmod(0o755)
    sevlaunch.environment["XDG_CACHE_HOME"] = str(sevlaunch.base / "cache")
    profile = sevlaunch.base / "plain.yaml"
    (sevlaunch.base / "firmware").write_bytes(bytes(1 << 20))
    profile.write_text(f"memory: 64M\naccel: tcg\nfirmware: {{image: firmware}}\nqemu: {{binary: {file}}}\n")
    result = sevlaunch("up", profile, check=5)
    assert "was killed by signal 31 while plain was being started" in result.stderr
    assert "QEMU's sandbox stopped it" in result.stderr


def test_what_is_looked_for_is_what_qemus_have() -> None:
    """Each entry's words stand in the program of one of the QEMUs here: none is from memory."""
    programs = [Path(qemu_binary_of(version)) for version in VERSIONS]
    # Where another loader runs it, the program is below.
    contents = [
        (one if not (below := one.parent / "usr/bin" / one.name).exists() else below).read_bytes() for one in programs
    ]
    for known in (*EXACT, *SEV, *KNOWN):
        assert not known.printed or any(known.printed.encode() in content for content in contents), known.printed
        assert known.source


# Lines that the QEMUs 7.2.22, 10.0.2 and 11.1.3 gave on machines without SEV, beside those above.
PRINTED = [
    "qemu-system-x86_64: ../../softmmu/vl.c:2590: qemu_machine_creation_done: Assertion `machine->cgs->ready' failed.",
    QEMU + "-accel kvm: sev_kvm_init: cbitpos check failed, host '0' requested '51'",
    QEMU + "-accel kvm: sev_kvm_init: Failed to open /dev/sev 'No such file or directory'",
    QEMU + "-accel kvm: sev_kvm_init: Failed to open /dev/sev 'Permission denied'",
    QEMU + "-accel kvm: Could not open '/dev/sev': No such file or directory",
    QEMU + "-accel kvm: vm-type SEV-SNP not supported by KVM",
    QEMU + "SEV-SNP does not support SMM.",
    QEMU + "-device virtio-rng-pci,iommu_platform=on: VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor "
    "transitional device",
    QEMU + "Address space limit 0xffffffffff < 0x3077fffffff phys-bits too low (40)",
    QEMU + "mlockall: Cannot allocate memory",
    QEMU + "unable to map backing store for guest RAM: Cannot allocate memory",
    QEMU + "-accel kvm: Could not access KVM kernel module: Permission denied",
    QEMU + "-accel kvm,device=/nonexistent: Could not access KVM kernel module: No such file or directory",
    QEMU + "-accel kvm: invalid accelerator kvm",
    QEMU + '-device virtio-blk-pci,drive=a: Failed to get "write" lock',
    QEMU + "-netdev user,id=n0,hostfwd=tcp::22-:22: Could not set up host forwarding rule 'tcp::22-:22'",
    QEMU + "-vnc 127.0.0.1:0: Failed to find an available port: Address already in use",
    QEMU + "-netdev tap,id=t,ifname=slx0,script=no,downscript=no: could not open /dev/net/tun: Permission denied",
    QEMU
    + "-netdev tap,id=t,ifname=slx0,script=no,downscript=no: Could not open '/dev/net/tun': No such file or directory",
    QEMU + "-netdev tap,id=t,vhost=on: tap: open vhost char device failed: No such file or directory",
    QEMU + "-device vhost-vsock-pci,guest-cid=7: vhost-vsock: failed to open vhost device: No such file or directory",
    QEMU + "-netdev tap,id=t,ifname=slx0: could not launch network script /etc/qemu-ifup: Operation not permitted",
    QEMU + "-blockdev driver=file,node-name=a,filename=/etc/shadow: Could not open '/etc/shadow': Permission denied",
    QEMU + "-blockdev driver=file,node-name=a,filename=/none: Could not open '/none': No such file or directory",
    "qemu: could not load PC BIOS '/nonexistent'",
    QEMU + "-blockdev driver=luks,key-secret=k,node-name=d: Invalid password, cannot unlock any keyslot",
    QEMU + "-blockdev driver=luks,key-secret=k,node-name=d: Data from secret k is not valid UTF-8",
    QEMU
    + "-blockdev driver=file,node-name=a,aio=io_uring: failed to init linux io_uring ring: Operation not permitted",
    QEMU
    + "-blockdev driver=file,node-name=a,aio=io_uring: aio=io_uring was specified, but is not available (disabled via "
    "io_uring_disabled sysctl or blocked by container runtime seccomp policy?)",
    QEMU
    + "-blockdev driver=file,node-name=a,aio=native: Unable to use native AIO: failed to create linux AIO context: "
    "Resource temporarily unavailable",
    QEMU + "system firmware block device pflash0 has invalid size 1536",
    QEMU + "phys-bits should be between 32 and 52  (but is 20)",
    QEMU + "cannot write to the log: No space left on device",
    QEMU + "-accel kvm: failed to initialize kvm: Operation not permitted",
    QEMU + "terminating on signal 15 from pid 16221 (timeout)",
]


def test_each_entry_has_a_line_that_no_other_entry_takes() -> None:
    reached = {hint_for(lines) for lines, _ in PUBLISHED.values()} | {hint_for([line]) for line in PRINTED}
    assert [known.pattern for known in (*EXACT, *SEV, *KNOWN) if known.hint not in reached] == []
    assert "" not in reached
