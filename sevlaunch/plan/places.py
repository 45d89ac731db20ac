"""The names of what QEMU makes in its guest's folder, for its command line and for those who look for it there."""

from __future__ import annotations

# The folder of QEMU's account, in the guest's; all others are names in it.
QEMU_FOLDER = "qemu"
# The monitor of sevlaunch's commands, and the one of programs that attach. The launcher's own is no file.
COMMANDS_SOCKET = "commands.sock"
PROGRAMS_SOCKET = "qmp.sock"
CONSOLE_SOCKET = "console.sock"
CONSOLE_LOG = "console.log"
AGENT_SOCKET = "agent.sock"
# Of a display, by its kind, and of the channels, by their numbers.
DISPLAY_SOCKET = "{}.sock"
CHANNEL_SOCKET = "port{}.sock"
SERIAL_SOCKET = "serial{}.sock"
TPM_SOCKET = "tpm.sock"
# Where systemd-journald takes entries in its own protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL
JOURNAL_SOCKET = "/run/systemd/journal/socket"
# In the guest's folder, beside that of QEMU's account, who may read it.
SEED = "seed.iso"
KERNEL, INITRD = "kernel", "initrd"
INITDATA = "initdata.img"
# In the guest's state folder.
TPM_STATE = "tpm"
SSH_KEY = "ssh_key"
KNOWN_HOSTS = "known_hosts"

LONGEST_SOCKET = max((COMMANDS_SOCKET, PROGRAMS_SOCKET, CONSOLE_SOCKET, AGENT_SOCKET), key=len)
