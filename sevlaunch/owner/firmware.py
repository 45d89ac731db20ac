"""A firmware image, as a launch measures it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

from sevsnpmeasure.gctx import GCTX

from sevlaunch.errors import UsageError
from sevlaunch.files import read_bounded
from sevlaunch.qcow2 import MAGIC, MAX_FLASH_BYTES, Qcow2
from sevlaunch.sevapi.ovmf import Section, es_reset_eip, hashes_table_gpa, secret_area, sev_metadata

_PAGE = 4096
_END_GPA = 1 << 32


class Sha256:
    """A SHA-256 computation that can go on from a state it had before."""

    def __init__(self, content: bytes = b"") -> None:
        self._state = hashlib.sha256(content)

    def then(self, content: bytes) -> Sha256:
        """The computation after ``content``; this one stays as it is."""
        later = Sha256()
        later._state = self._state.copy()
        later._state.update(content)
        return later

    def digest(self) -> bytes:
        """The hash of all content so far."""
        return self._state.digest()


@dataclass(frozen=True, eq=False)
class Firmware:
    """An image, or what is known of it.

    ``sha256``: 32 bytes. ``image``: empty where only hashes are known. ``snp_pages``: the launch digest of an SNP guest
    after the image's own pages, 48 bytes, where the owner gives it in place of the content of ``image``. ``name``: what
    messages call it.
    """

    sha256: bytes
    image: bytes = b""
    snp_pages: bytes = b""
    name: str = "the firmware"

    @classmethod
    def of_image(cls, image: bytes, *, snp_pages: bytes = b"", name: str = "the firmware") -> Firmware:
        """The firmware in ``image``.

        :raise UsageError: when its table is damaged.
        """
        firmware = cls(hashlib.sha256(image).digest(), image, snp_pages, name)
        try:
            _ = firmware.reset_eip, firmware.hashes_gpa, firmware.secret_area, firmware.sections
        except ValueError as error:
            raise UsageError(
                f"{name}: the image is damaged: {error}", hint="is it cut short, or another file?"
            ) from error
        return firmware

    @cached_property
    def measured(self) -> Sha256:
        """The launch digest of SEV and SEV-ES after the image; the rest of a launch goes on from here.

        :raise UsageError: when only the hash is known, from which SHA-256 can't go on.
        """
        if not self.image:
            raise UsageError(
                "kernel hashes and VMSA pages are measured after the firmware, and SHA-256 can't go on from a hash",
                hint="give the firmware itself: --firmware FILE",
            )
        return Sha256(self.image)

    @cached_property
    def after_snp_pages(self) -> bytes:
        """The launch digest of an SNP guest after the image's own pages: AMD 56860, SNP_LAUNCH_UPDATE.

        :raise UsageError: when the image does not consist of whole pages.
        """
        if self.snp_pages:
            return self.snp_pages
        if not self.image or len(self.image) % _PAGE:
            raise UsageError(
                f"{self.name}: wanted an image of whole pages of {_PAGE} bytes, found {len(self.image)} bytes",
                hint="give the firmware itself: --firmware FILE",
            )
        context = GCTX()
        context.update_normal_pages(_END_GPA - len(self.image), self.image)
        digest: bytes = context.ld()
        return digest

    @cached_property
    def reset_eip(self) -> int:
        """Where all vCPUs but the first start; 0 when the image does not say."""
        return es_reset_eip(self.image)

    @cached_property
    def hashes_gpa(self) -> int:
        """Where the hashes of a direct boot go; 0 when there is no place for them."""
        return hashes_table_gpa(self.image)

    @cached_property
    def secret_area(self) -> tuple[int, int] | None:
        """Address and size of the area for launch secrets."""
        return secret_area(self.image)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The page ranges that an SNP launch fills."""
        return sev_metadata(self.image)


def read_firmware(file: Path, *, snp_pages: bytes = b"") -> Firmware:
    """The firmware in a file, raw or qcow2: what is measured is what the guest sees of it.

    :raise UsageError: when it can't be read, is empty, too large or damaged.
    """
    content = read_bounded(file, "firmware", 2 * MAX_FLASH_BYTES)
    try:
        if content.startswith(MAGIC):
            content = Qcow2(BytesIO(content)).whole(MAX_FLASH_BYTES)
    except ValueError as error:
        raise UsageError(f"the firmware {file}: {error}", hint="is it another file?") from error
    if len(content) > MAX_FLASH_BYTES:
        raise UsageError(
            f"firmware: wanted at most {MAX_FLASH_BYTES} bytes, {file} has more", hint="is it another file?"
        )
    return Firmware.of_image(content, snp_pages=snp_pages, name=f"the firmware {file}")
