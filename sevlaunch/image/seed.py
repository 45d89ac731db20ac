"""The seed of a first boot: a CD-ROM image as cloud-init's data source NoCloud reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from sevlaunch.image.cloud_config import Wishes, user_data
from sevlaunch.image.iso9660 import iso9660
from sevlaunch.profile.seed_values import yaml_text

# cloud-init's DataSourceNoCloud looks for a file system of this label.
LABEL = "cidata"
_ID_DIGITS = 16


class Seed(Struct, frozen=True):
    """All that is in a seed but the keys that are only found when the guest starts.

    ``guest`` tells guests apart whose seeds say the same; ``keys`` are those that the profile names.
    """

    guest: str
    hostname: str
    wishes: Wishes
    keys: tuple[str, ...] = ()
    meta_data: dict[str, Any] = field(default_factory=dict)
    network_config: str | None = None

    @property
    def instance_id(self) -> str:
        """What cloud-init tells instances by: when it changes, all is done again that is done once for each.

        A function of the guest and of what the profile says. Keys that were found do not count: an agent with one
        more key is no reason to make the host's keys anew, and to run commands a second time.
        """
        said = self._documents("", ())
        digest = hashlib.sha256()
        for text in (self.guest, *(part for name in sorted(said) for part in (name, said[name]))):
            content = text.encode("utf-8", "surrogateescape")
            digest.update(len(content).to_bytes(8, "big") + content)
        return f"sevlaunch-{digest.hexdigest()[:_ID_DIGITS]}"

    def documents(self, found: Sequence[str] = ()) -> dict[str, bytes]:
        """The files of the seed, with the keys that were ``found``."""
        return {name: text.encode() for name, text in self._documents(self.instance_id, found).items()}

    def image(self, found: Sequence[str] = ()) -> bytes:
        """The seed as a disk's bytes, with the keys that were ``found``. The same input gives the same bytes."""
        return iso9660(LABEL, self.documents(found))

    def _documents(self, instance: str, found: Sequence[str]) -> dict[str, str]:
        meta_data = {"instance-id": instance, "local-hostname": self.hostname, **self.meta_data}
        documents = {
            "meta-data": yaml_text(meta_data),
            "user-data": user_data(self.wishes, [*self.keys, *found]),
        }
        if self.network_config is not None:
            documents["network-config"] = self.network_config
        return documents
