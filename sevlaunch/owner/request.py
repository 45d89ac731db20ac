"""What a guest is sent so that it answers with a report: a nonce in a script that needs a shell and nothing else.

The answer on its standard output is the report as it is, 1184 bytes, and behind it the host's table of certificates,
where the guest gets one: what :func:`sevlaunch.owner.report_file.read_report` takes.
"""

from __future__ import annotations

import os

from sevlaunch.sevapi.report import REPORT_DATA_BYTES

# The script's exit code for a guest without a way to a report: EX_UNAVAILABLE of sysexits.h.
NO_WAY = 69

# Linux's Documentation/ABI/testing/configfs-tsm-report: a folder for each request; its generation changes with each
# writing, so that the answer to somebody else's request is told apart. What is written counts when the file is closed.
# snpguest, of virtee, asks /dev/sev-guest where the kernel is older than 6.7; it reads 64 raw bytes.
_SCRIPT = """\
#!/bin/sh
# Asks for an SEV-SNP attestation report over a nonce, and prints it; a guest runs it as root.
set -eu
reports=/sys/kernel/config/tsm/report
fail() {
    echo "$1" >&2
    exit @NO_WAY@
}
nonce() {
    printf '@NONCE@'
}
[ "$(id -u)" = 0 ] || fail "only root can ask for a report"
[ -d "$reports" ] || modprobe sev-guest 2> /dev/null || :
[ -d "$reports" ] || mount -t configfs configfs /sys/kernel/config 2> /dev/null || :
if [ -d "$reports" ]; then
    entry=$reports/sevlaunch-$$
    mkdir "$entry" || fail "the kernel has nobody who makes reports: this is no guest that has them"
    trap 'rmdir "$entry"' EXIT
    provider=$(cat "$entry/provider")
    [ "$provider" = sev_guest ] || fail "reports are made by $provider here, and not by sev_guest: this is no SNP guest"
    nonce > "$entry/inblob"
    generation=$(cat "$entry/generation")
    cat "$entry/outblob"
    cat "$entry/auxblob"
    [ "$(cat "$entry/generation")" = "$generation" ] || fail "somebody else asked in the same folder"
elif [ -e /dev/sev-guest ] && command -v snpguest > /dev/null; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    nonce > "$folder/nonce"
    snpguest report "$folder/report" "$folder/nonce" >&2
    cat "$folder/report"
elif [ -e /dev/sev-guest ]; then
    fail "there is /dev/sev-guest and no $reports: it takes Linux 6.7, or snpguest in the guest"
else
    fail "there is neither $reports nor /dev/sev-guest: this is no SNP guest, or its kernel lacks sev-guest"
fi
"""


def new_nonce() -> bytes:
    """64 bytes that nobody has seen before, for the report's data."""
    return os.urandom(REPORT_DATA_BYTES)


def request_script(nonce: bytes) -> str:
    """The script that asks for a report over a nonce of 64 bytes.

    :raise ValueError: when it has not as many.
    """
    if len(nonce) != REPORT_DATA_BYTES:
        raise ValueError(f"a nonce has {REPORT_DATA_BYTES} bytes, found {len(nonce)}")
    # Octal: what printf of every shell takes, NUL and per cent included.
    written = "".join(f"\\{byte:03o}" for byte in nonce)
    return _SCRIPT.replace("@NO_WAY@", str(NO_WAY)).replace("@NONCE@", written)
