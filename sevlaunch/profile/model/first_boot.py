"""What a guest's system does at its first boot: a seed for cloud-init."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from sevlaunch.profile.boot_values import read_credential, read_ignition
from sevlaunch.profile.fields import AbsolutePath, Parser, Placeholder, matching
from sevlaunch.profile.model.base import FILE_OR_TEXT, Model
from sevlaunch.profile.seed_values import (
    read_meta_data,
    read_network_config,
    read_password_hash,
    read_public_keys,
    read_user_data,
)

# useradd(8) of all distributions takes these.
_USER, _A_USER = r"[a-z_][a-z0-9_-]{0,31}", "the name of a user: at most 32 small letters, digits, - and _"
# RFC 1123, 2.1; Linux' HOST_NAME_MAX.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_OWNER = r"[A-Za-z_][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_.-]*)?"
_AN_OWNER = "the name of a user, or USER:GROUP"
_FILE_OR_MAPPING = Meta(extra_json_schema={"type": ["string", "object"]})

UserData = Annotated[str, Parser(read_user_data), _FILE_OR_MAPPING]
MetaData = Annotated[dict[str, Any], Parser(read_meta_data), _FILE_OR_MAPPING]
NetworkConfig = Annotated[str, Parser(read_network_config), _FILE_OR_MAPPING]
PasswordHash = Annotated[str, Parser(read_password_hash)]
PublicKeys = Annotated[str, Parser(read_public_keys), Meta(description="a public key, or the path of a file with some")]


IgnitionFile = Annotated[
    str,
    Parser(read_ignition, names_file=True),
    Placeholder("/"),
    Meta(min_length=1, description="a path; relative to the profile"),
]
CredentialName = Annotated[
    str, matching(r"(?!\.{1,2}$)[A-Za-z0-9_.@-]{1,255}", wanted="a name of letters, digits, and the signs _ . @ -")
]
Credential = Annotated[
    bytes,
    Parser(read_credential),
    FILE_OR_TEXT,
]


class BootFile(Model, frozen=True, kw_only=True):
    """A file that is written in the guest."""

    path: Annotated[str, matching(r"/[^\x00-\x1f\x7f]{1,4095}", "in the guest", wanted="an absolute path in the guest")]
    content: Annotated[str | None, Meta(description="what is in it; or else: source")] = None
    source: Annotated[AbsolutePath | None, Meta(description="a file of the host that is copied")] = None
    mode: Annotated[str, matching(r"0?[0-7]{3,4}", wanted="permissions such as '0644', in quotes")] = "0644"
    owner: Annotated[str, matching(_OWNER, wanted=_AN_OWNER)] = "root:root"


class FirstBoot(Model, frozen=True, kw_only=True):
    """A NoCloud seed: a small read-only disk from which cloud-init makes the guest's system this guest's own."""

    hostname: Annotated[
        Annotated[
            str,
            matching(rf"(?=.{{1,64}}$){_LABEL}(?:\.{_LABEL})*", wanted="a host name of letters, digits, - and dots"),
        ]
        | None,
        Meta(description="default: the guest's name"),
    ] = None
    user: Annotated[
        Annotated[str, matching(_USER, wanted=_A_USER)] | None,
        Meta(description="user that is made, and may use sudo; null: the one that the image has by itself"),
    ] = "admin"
    ssh_keys: Annotated[
        Literal["auto", "own"] | list[PublicKeys],
        Meta(
            description="public keys that may log in; auto: those of the SSH agent and of ~/.ssh, or else as own; "
            "own: a key pair for this guest alone, in sevlaunch's state folder"
        ),
    ] = "auto"
    password_hash: Annotated[
        PasswordHash | None,
        Meta(description="of the user's password, as `openssl passwd -6` makes it; default: no password logs in"),
    ] = None
    user_data: Annotated[UserData | None, Meta(description="user data of your own: a file, or a mapping")] = None
    meta_data: Annotated[MetaData | None, Meta(description="further meta data: a file, or a mapping")] = None
    network_config: Annotated[NetworkConfig | None, Meta(description="the guest's networks: a file, or a mapping")] = (
        None
    )
    files: Annotated[list[BootFile], Meta(description="files that are written in the guest")] = []
    run: Annotated[
        list[Annotated[str, Meta(min_length=1)]], Meta(description="shell commands that root runs, in their order")
    ] = []
    packages: Annotated[
        list[
            Annotated[
                str,
                matching(r"[A-Za-z0-9@][A-Za-z0-9.+:_=~*@/-]*", wanted="the name of a package"),
                Placeholder("package"),
            ]
        ],
        Meta(description="packages that are installed"),
    ] = []
