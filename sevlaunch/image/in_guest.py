"""What goes into an image for a guest to check its own first-boot seed: a program, its unit, cloud-init's settings."""

from __future__ import annotations

from pathlib import Path

from sevlaunch.errors import UsageError

PROGRAM = "usr/lib/sevlaunch/check-seed"
UNIT_NAME = "sevlaunch-check-seed.service"
UNIT = f"etc/systemd/system/{UNIT_NAME}"
SETTINGS = "etc/cloud/cloud.cfg.d/99-sevlaunch-seed.cfg"
# All that acts on a seed; which of them there are depends on cloud-init's version.
STAGES = (
    "cloud-init-local.service",
    "cloud-init-main.service",
    "cloud-init-network.service",
    "cloud-init.service",
    "cloud-config.service",
    "cloud-final.service",
)

_UNIT = f"""\
[Unit]
Description=Compare the first-boot seed with the init-data in HOST_DATA
DefaultDependencies=no
RequiresMountsFor=/var/lib/cloud
After=systemd-remount-fs.service systemd-udev-trigger.service sys-kernel-config.mount
Before={" ".join(STAGES)}
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/{PROGRAM}
StandardError=journal+console
"""

_SETTINGS = """\
# The seed is the one that check-seed has compared, and put into /var/lib/cloud/seed/nocloud: no other source counts,
# and no disk is read a second time.
datasource_list: [NoCloud]
datasource: {NoCloud: {fs_label: null}}
"""


def write_seed_check(folder: Path) -> list[Path]:
    """Write the files into ``folder``, as they have to lie in the root folder of an image; what was written.

    :raise UsageError: when one is there already, or can't be written.
    """
    program = Path(__file__).with_name("seed_check.py").read_text()
    files = {PROGRAM: (program, 0o755), UNIT: (_UNIT, 0o644), SETTINGS: (_SETTINGS, 0o644)}
    written: list[Path] = []
    try:
        for name, (text, mode) in files.items():
            path = _place(folder, name)
            with path.open("x") as stream:
                written.append(path)
                stream.write(text)
            path.chmod(mode)
        for stage in STAGES:
            path = _place(folder, f"etc/systemd/system/{stage}.requires/{UNIT_NAME}")
            # As `systemctl enable` makes it.
            path.symlink_to(f"/{UNIT}")
            written.append(path)
    except OSError as error:
        for path in written:
            path.unlink()
        raise UsageError(
            f"can't write the seed's check into {folder}: {error.strerror}: {error.filename2 or error.filename}",
            hint="name another folder",
        ) from error
    return written


def _place(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
