"""The seed of a first boot as a profile says it, with the files that are copied into it."""

from __future__ import annotations

from sevlaunch.errors import HostError
from sevlaunch.image.cloud_config import SeedFile, Wishes
from sevlaunch.image.seed import Seed
from sevlaunch.opening import open_regular
from sevlaunch.profile.model.first_boot import BootFile, FirstBoot

# A seed is for what configures a guest; what is larger belongs on a disk.
MOST_SOURCE_BYTES = 16 << 20


def read_seed(said: FirstBoot, *, guest: str, hostname: str) -> Seed:
    """The seed, but for the keys that are only found when the guest starts.

    :param guest: which guest it is, among all whose seeds say the same.
    :raise HostError: when a file can't be read.
    """
    named = said.ssh_keys if isinstance(said.ssh_keys, list) else []
    return Seed(
        guest=guest,
        hostname=hostname,
        wishes=Wishes(
            user=said.user,
            password_hash=said.password_hash,
            files=tuple(SeedFile(file.path, _content(file), file.mode, file.owner) for file in said.files),
            run=tuple(said.run),
            packages=tuple(said.packages),
            user_data=said.user_data,
        ),
        keys=tuple(line for lines in named for line in lines.split("\n")),
        meta_data=said.meta_data or {},
        network_config=said.network_config,
    )


def _content(file: BootFile) -> bytes:
    if file.source is None:
        return (file.content or "").encode()
    hint = "make it, or correct first_boot.files"
    try:
        with open_regular(file.source) as stream:
            content = stream.read(MOST_SOURCE_BYTES + 1)
    except OSError as error:
        raise HostError(f"can't read {file.source} for the guest: {error.strerror}", hint=hint) from error
    if len(content) > MOST_SOURCE_BYTES:
        raise HostError(
            f"{file.source} has more than {MOST_SOURCE_BYTES >> 20} MiB, which is too much for a seed",
            hint="give it to the guest on a disk",
        )
    return content
