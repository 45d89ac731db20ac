"""The index of the commands: the module that has each, and what the list of commands says of it.

Only the command that is asked for is imported and read, and for the list none: nobody waits for the others. What
stands here fits into a line of that list; what a command's own ``--help`` says of it is its docstring.
"""

from __future__ import annotations

# By module. A command without a sentence is another name of one that has it, and not in the list.
COMMANDS: dict[str, dict[str, str]] = {
    "up": {"up": "Start guests; print their SEV state and launch measurement."},
    "guests": {
        "down": "Take guests down: ACPI power-down, then quit, then kill.",
        "rm": "Remove what outlives a guest, such as its NVRAM and overlays.",
        "ps": "List the guests.",
        "ls": "",
        "status": "Show a guest's state, SEV state and launch measurement.",
        "evidence": "Print what the launch showed, as JSON for the guest owner.",
        "console": "Open a terminal on a guest's console; Ctrl-] leaves it.",
        "qmp": "Send a QMP command to a guest's QEMU; print the answer.",
        "inject": "Put the owner's secrets into a guest paused in its launch.",
        "resume": "Let a paused guest run.",
    },
    "restarting": {"restart": "Take a guest down, and start it again by its profile."},
    "logs": {"logs": "Print a guest's console output, or QEMU's own."},
    "inside": {
        "exec": "Run a program in a guest through the QEMU guest agent.",
        "wait": "Wait until a guest is ready, or has ended.",
        "events": "Print QMP's events of a guest as they come, until it ends.",
        "pause": "Stop a guest's virtual processors until `sevlaunch resume`.",
    },
    "ssh": {
        "ssh": "Log in to a guest by SSH, or run a command there.",
        "cp": "Copy files to a guest, or from it.",
    },
    "attest": {
        "attest": "Ask a SEV-SNP guest for its attestation report, and check it.",
    },
    "profiles": {
        "check": "Check profiles; print every mistake with its place.",
        "schema": "Print the JSON Schema of profiles, for editors.",
        "init": "Write a commented starting profile.",
        "policy": "Show a guest policy as number and as names of its bits.",
        "host": "Print what this machine offers as JSON; write its certificates.",
    },
    "render": {"render": "Print the QEMU command line of a profile, or its lock file."},
    "doctor": {"doctor": "Check what this machine can run; tell how to fix the rest."},
    "importing": {"import": "Turn a libvirt domain into a profile."},
    "services": {"unit": "Print a systemd unit that runs the guest of a profile."},
}
# The commands that have commands of their own.
OWNER, IMAGE = "owner", "image"
GROUPS: dict[str, dict[str, dict[str, str]]] = {
    IMAGE: {
        "images": {
            "fetch": "Fetch an image, verify it, and keep it.",
            "ls": "List the images in the cache.",
            "rm": "Remove images from the cache.",
            "verity": "Make the hash tree of an image for dm-verity.",
        },
        "seed_check": {
            "seed-check": "Write what makes an image's guests check their seed.",
        },
    },
    OWNER: {
        "owner.session": {"session": "Make the keys and files for one launch."},
        "owner.digest": {"digest": "Print the launch digest that a profile must give."},
        "owner.verify": {"verify": "Was the launch right?"},
        "owner.secret": {
            "secret": "Wrap secrets for a launch that was right.",
        },
        "owner.report": {"report": "Check an attestation report and its certificates."},
        "owner.reference_values": {
            "reference-values": "Print what a verifier has to know of a launch.",
        },
        "owner.publish": {"publish": "Make a launch known to a trustee."},
        "owner.fetch": {"fetch": "Fetch AMD's certificates and revocation list."},
        "owner.request": {
            "request": "Print a script by which a guest answers with a report.",
        },
        "owner.id_block": {
            "id-block": "Sign an ID block: the one launch that may run.",
        },
        "owner.compare": {
            "compare": "Do two lock files describe the same launch?",
        },
        "owner.initdata": {
            "initdata": "Print the init-data of a profile, as its guest gets it.",
        },
    },
}
