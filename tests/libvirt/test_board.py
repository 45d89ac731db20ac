"""SMBIOS tables, files of fw_cfg and serial ports of a domain."""

from __future__ import annotations

from tests.libvirt.support import became, domain, imported, profile_of

SYSINFO = (
    "<sysinfo type='smbios'><system><entry name='serial'>s, 1</entry></system><baseBoard><entry name='asset'>a</entry>"
    "</baseBoard><oemStrings><entry>one, two</entry></oemStrings></sysinfo>"
)


def test_smbios_tables_are_carried_where_the_domain_asks_for_them() -> None:
    smbios = profile_of(imported(domain(before=SYSINFO, os="<smbios mode='sysinfo'/>"))).smbios
    assert (smbios.system.serial, smbios.board.asset, smbios.oem_strings) == ("s, 1", "a", ["one, two"])


def test_tables_that_the_domain_does_not_ask_for_are_left_out() -> None:
    result = imported(domain(before=SYSINFO))
    assert profile_of(result).smbios.system.serial is None
    assert became(result, "sysinfo") == [("dropped", "os/smbios does not ask for it")]


def test_the_hosts_own_tables_are_told() -> None:
    result = imported(domain(os="<smbios mode='host'/>"))
    assert ("not supported", "the host's own tables are none of the guest's") in became(result, "os/smbios")


def test_further_serial_ports_are_counted_and_a_fifth_is_told() -> None:
    result = imported(domain("<serial type='pty'/>" * 5))
    assert profile_of(result).serial_ports == 3
    assert ("not supported", "a machine has four serial ports") in became(result, "devices/serial")


def test_whose_interrupt_controller_it_is_follows_from_the_guest() -> None:
    features = "<features><acpi/><ioapic driver='qemu'/></features>"
    snp = "<launchSecurity type='sev-snp'><policy>0x30000</policy></launchSecurity>"
    assert became(imported(domain(before=features + snp)), "features/ioapic@driver") == [
        ("carried", "an SNP guest's is QEMU's")
    ]
    assert [kind for kind, _ in became(imported(domain(before=features)), "features/ioapic")] == ["dropped"]
