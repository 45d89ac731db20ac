"""The facts about a host's firmware: what descriptors say of it, and what stands in the images."""

# No postponed annotations: to evaluate them takes msgspec longer than to read a saved host.

from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import Facts
from sevlaunch.sevapi.ovmf import SectionKind

_BIOS_UNIT = 64 << 10
# What is said of a file in the format of Microsoft's igvm crate.
IGVM = "an IGVM file: QEMU 10.1 and newer take one where built with libigvm, sevlaunch does not yet"
_SINCE_2024 = {SectionKind.SVSM_CAA, SectionKind.SNP_KERNEL_HASHES}


class FirmwareDescriptor(Facts, frozen=True, kw_only=True):
    """A firmware descriptor, QEMU's docs/interop/firmware.json."""

    file: str
    description: str = ""
    device: str  # flash, memory or igvm
    mode: str = "split"  # of flash: split, combined or stateless
    executable: str
    executable_format: str = "raw"
    nvram_template: str | None = None
    nvram_template_format: str = "raw"
    interface_types: list[str] = []
    machines: list[str] = []  # patterns of machine types for x86_64
    features: list[str] = []


class FirmwareImage(Facts, frozen=True, kw_only=True):
    """What an OVMF image, or a store of its variables, is, and has for encrypted guests, by a look into it."""

    path: str
    error: str = ""  # why it could not be read, or is damaged
    format: str = "raw"  # by its magic: raw or qcow2, as QEMU's block drivers are called, or igvm
    size: int | None = None  # bytes of what the guest sees; null: not told
    es_reset_vector: int | None = None  # where the other vCPUs of a SEV-ES guest start
    hashes_table: bool = False  # a place for the hashes of a measured direct boot
    secret_area: bool = False  # a place for the guest owner's secret
    snp_pages: list[int] = []  # the kinds of pages in the list of those that a SNP launch prepares

    @property
    def snp_metadata(self) -> bool:
        """It has that list, without which a SNP guest can't be launched."""
        return bool(self.snp_pages)

    @property
    def older_amdsev(self) -> bool:
        """A build of edk2's OvmfPkg/AmdSev from before 2024, when pages for a SVSM and for the hashes of SNP came.

        A general build got a table of hashes after that, if at all. The older ones of these, from before edk2 commit
        81dc0d8b4c (May 2023), boot a measured kernel or their own GRUB, and no disk.
        """
        return self.hashes_table and not _SINCE_2024 & set(self.snp_pages)

    def unfit_for_bios(self) -> str:
        """Why QEMU would not take it with -bios, or nothing: x86_bios_rom_init() in its hw/i386/x86-common.c."""
        if self.format != "raw":
            return f"a {self.format} image, which -bios does not take"
        if self.size is not None and self.size % _BIOS_UNIT:
            return f"{self.size} bytes, and -bios takes multiples of 64 KiB"
        return ""

    def lacks_for(self, guest_type: GuestType, *, kernel_hashes: bool = False) -> str:
        """What the image lacks for a guest of this type, or nothing."""
        needed = {
            "SEV-ES reset vector": self.es_reset_vector is not None or not guest_type.encrypts_registers,
            "SNP metadata": self.snp_metadata or guest_type is not GuestType.SEV_SNP,
            "table of hashes for kernel_hashes": self.hashes_table or not kernel_hashes,
            "page for the hashes of a SNP guest": SectionKind.SNP_KERNEL_HASHES in self.snp_pages
            or not self.hashes_table
            or not (kernel_hashes and guest_type is GuestType.SEV_SNP),
        }
        lacking = [name for name, fine in needed.items() if not fine]
        return f"it has no {' and no '.join(lacking)}" if lacking else ""
