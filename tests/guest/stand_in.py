"""A stand-in for the guest kernel's configfs-tsm: the same files in the same place, answered by somebody over TCP.

It is a program called mkdir, before the real one on PATH, that puts FIFOs into a new folder of reports: what is written
into inblob is sent on, and what comes back is read from outblob and auxblob.
"""

from __future__ import annotations

import shlex

REPORTS = "/sys/kernel/config/tsm/report"
REPORT_BYTES = 1184

_MKDIR = """\
#!/bin/sh
{mkdir} "$@" || exit
for folder; do :; done
case $folder in {reports}/*) ;; *) exit 0 ;; esac
cd "$folder" || exit
mkfifo inblob outblob auxblob
echo {provider} > provider
echo 1 > generation
cat > .answer.sh << 'END'
cat inblob > .request
{send} < .request > .answer
head -c {size} .answer > outblob
tail -c +{behind} .answer > auxblob
END
setsid sh .answer.sh < /dev/null > /dev/null 2>&1 &
echo $! > .session
"""
# Who asks may go before all is answered.
_RMDIR = """\
#!/bin/sh
kill -- "-$(cat "$1/.session")" 2> /dev/null
rm -r "$1"
"""


# busybox' shell takes its own mkdir, whatever is on PATH, and no file of functions; but functions come before both.
_BUSYBOX_SHELL = """\
#!/bin/busybox ash
case "$*" in
    -s | '-c sh -s')
        exec /bin/busybox ash -c '
            mkdir() {{ {folder}/mkdir "$@"; }}
            rmdir() {{ {folder}/rmdir "$@"; }}
            . /proc/self/fd/0'
        ;;
esac
exec /bin/busybox ash "$@"
"""


def busybox_shell(folder: str) -> str:
    """What follows the script where /bin/sh is busybox', which has to be told of the programs in ``folder``."""
    content = shlex.quote(_BUSYBOX_SHELL.format(folder=folder))
    return f"printf %s {content} > /bin/sh.new; chmod 755 /bin/sh.new; mv /bin/sh.new /bin/sh\n"


def script(send: str, *, folder: str, mkdir: str = "/bin/mkdir", provider: str = "sev_guest") -> str:
    """A script for sh that sets it up, as root, in a system whose /sys/kernel nothing else needs.

    :param send: the command that sends its input on and prints the answer.
    :param folder: one on PATH before the real mkdir and rmdir.
    :param mkdir: the real one.
    """
    made = _MKDIR.format(
        mkdir=mkdir, reports=REPORTS, provider=provider, send=send, size=REPORT_BYTES, behind=REPORT_BYTES + 1
    )
    lines = [
        "set -eu",
        "mount -t tmpfs tmpfs /sys/kernel",
        f"{mkdir} -p {REPORTS} {shlex.quote(folder)}",
    ]
    for name, content in (("mkdir", made), ("rmdir", _RMDIR)):
        file = shlex.quote(f"{folder}/{name}")
        lines.append(f"printf %s {shlex.quote(content)} > {file}; chmod 755 {file}")
    return "\n".join(lines) + "\n"
