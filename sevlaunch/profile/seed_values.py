"""What a profile says for a guest's first boot, inline or in files: documents, public keys, the hash of a password."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from sevlaunch.errors import ProfileError
from sevlaunch.profile.named_files import read_named

CLOUD_CONFIG = "#cloud-config"
# How the documents begin that cloud-init takes beside others, of which it passes over blanks, and does not mind the
# case: INCLUSION_TYPES_MAP in its cloudinit/handlers/__init__.py.
_KNOWN = ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "## template: jinja")
# convert_string() in its cloudinit/user_data.py: by this, within so many bytes, it knows a message of several.
_MIME, _MIME_WITHIN = "mime-version:", 4096
# cloud-init takes no larger document of some clouds; a person writes none.
MAX_BYTES = 1 << 20
# Keys of #cloud-config that a seed adds to: lists can be joined.
JOINED = ("users", "write_files", "runcmd", "packages", "ssh_authorized_keys")

# crypt(5): $id$..., of which the hash is the last part.
_HASH = r"\$[0-9a-z]{1,8}\$[!-~]{8,}"
_LONGEST_HASH = 1024
# sshd(8), the format of authorized_keys: options may stand in front of type and key, a comment behind them.
_KEY = r"(?:^|.*\s)((?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.-]+)\s+([A-Za-z0-9+/]+={0,2})(?:\s.*)?"


def yaml_text(value: Any) -> str:
    """``value``, plain data, as YAML that readers of version 1.1 understand, cloud-init's among them."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def as_hostname(name: str) -> str:
    """A guest's name with what no host name may have left out."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)[:63].strip("-") or "guest"


def read_user_data(value: object) -> str:
    """The user data in a file, or the #cloud-config in a mapping.

    :raise ValueError: when it is neither, or a #cloud-config in which nothing could be joined.
    """
    if isinstance(value, dict):
        config = _plain(value)
        _check_config(config, "")
        return f"{CLOUD_CONFIG}\n{yaml_text(config)}"
    text, file = _text(value, "user data: a file, or a mapping of #cloud-config")
    if is_cloud_config(text):
        _check_config(_mapping(text, file), f"{file}: ")
    return text


def read_meta_data(value: object) -> dict[str, Any]:
    """The meta data in a file or a mapping.

    :raise ValueError: when it is neither.
    """
    found = _plain(value) if isinstance(value, dict) else _mapping(*_text(value, "meta data: a file, or a mapping"))
    for key in ("instance-id", "local-hostname"):
        if key in found and not (isinstance(found[key], str) and found[key]):
            raise ValueError(f"wanted text for {key}, found {found[key]!r}")
    return dict(found)


def read_network_config(value: object) -> str:
    """The network configuration in a file or a mapping.

    :raise ValueError: when it is neither, or of no version that cloud-init knows.
    """
    if isinstance(value, dict):
        found = _plain(value)
        text = yaml_text(found)
    else:
        text, file = _text(value, "network configuration: a file, or a mapping")
        found = _mapping(text, file)
    inner = found.get("network", found)
    version = inner.get("version") if isinstance(inner, dict) else None
    if version not in (1, 2):
        raise ValueError(f"wanted a network configuration of version 1 or 2, found version {version!r}")
    return text


def read_public_keys(value: object) -> str:
    """Public SSH keys, one a line: the one that ``value`` is, or all in the file that it names.

    :raise ValueError: when there is none.
    """
    if isinstance(value, str) and re.fullmatch(_KEY, value):
        return _checked_key(str(value), repr(value[:40]))
    text, file = _text(value, "a public SSH key, or the path of a file with some")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    # What stands in a file that was named by mistake is in no message.
    keys = [
        _checked_key(line, f"something else in {file}:{number}")
        for number, line in lines
        if line and not line.startswith("#")
    ]
    if not keys:
        raise ValueError(f"wanted public SSH keys, found none in {file}")
    return "\n".join(keys)


def read_password_hash(value: object) -> str:
    """The hash of a password, of which no message says anything.

    :raise ValueError: when it is none.
    """
    if isinstance(value, str) and len(value) <= _LONGEST_HASH and re.fullmatch(_HASH, value):
        return str(value)
    raise ValueError("wanted the hash of a password, such as `openssl passwd -6` makes, found something else")


def is_cloud_config(text: str) -> bool:
    """Whether user data is a #cloud-config, and no archive or patch of some."""
    begin = text.lower().lstrip()
    return begin.startswith(CLOUD_CONFIG) and not begin.startswith((f"{CLOUD_CONFIG}-archive", f"{CLOUD_CONFIG}-jsonp"))


def looks_like_message(text: str) -> bool:
    """Whether cloud-init takes user data for a MIME message, which may hold several documents."""
    return _MIME in text[:_MIME_WITHIN].lower()


def is_message(text: str) -> bool:
    """Whether user data is such a message, and no document of another kind that looks like one."""
    return looks_like_message(text) and not text.lower().lstrip().startswith(_KNOWN)


def goes_with_others(text: str) -> bool:
    """Whether cloud-init takes user data beside other documents; else it stands alone, and something else reads it."""
    return text.lower().lstrip().startswith(_KNOWN) or is_message(text)


def public_key_in(line: str) -> tuple[str, str] | None:
    """The type of a public SSH key, and the key in base64, in a line of authorized_keys; None: there is none."""
    match = re.fullmatch(_KEY, line) if line.isprintable() else None
    if match is None:
        return None
    kind = match[1].encode()
    try:
        # RFC 4253, 6.6: a key begins with its own type, a string.
        whole = base64.b64decode(match[2], validate=True).startswith(len(kind).to_bytes(4, "big") + kind)
    except binascii.Error:
        return None
    return (match[1], match[2]) if whole else None


def _checked_key(line: str, found: str) -> str:
    if "PRIVATE KEY" in line:
        raise ValueError("wanted a public SSH key, found a private one: name the file that ends in .pub")
    if public_key_in(line) is None:
        raise ValueError(f"wanted a public SSH key such as 'ssh-ed25519 AAAA...', found {found}")
    return line


def _text(value: object, what: str) -> tuple[str, str]:
    """The text of the file that ``value`` names, and its path."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"wanted {what}; found {type(value).__name__}")
    content, path = read_named(value, MAX_BYTES + 1, what)
    if len(content) > MAX_BYTES:
        raise ValueError(f"wanted {what}: {path} has more than {MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"wanted {what}: {path} is no text in UTF-8 (if it is compressed, unpack it)") from error
    if not text.strip():
        raise ValueError(f"wanted {what}: {path} is empty")
    return text, path


def _mapping(text: str, file: str) -> dict[str, Any]:
    """The mapping that YAML text holds."""
    from pathlib import Path

    from sevlaunch.profile import source

    try:
        node = source.parse(text, file=file, base=Path(file).parent, problems=[], what="document")
    except ProfileError as error:
        problem = error.problems[0]
        raise ValueError(f"{problem.location}: {problem.message}") from error
    return dict(_plain(node.plain()))


def _plain(value: Any) -> Any:
    """Data of a profile without what its texts remember."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def _check_config(config: dict[str, Any], where: str) -> None:
    for key in JOINED:
        if key in config and not isinstance(config[key], list):
            found = type(config[key]).__name__
            raise ValueError(
                f"{where}wanted a list for {key} of #cloud-config, which others are added to; found {found}"
            )
    files = config.get("write_files", [])
    # YAML 1.2, of which profiles are, reads 0644 as six hundred and forty-four; in a file of its own it is as ever.
    if not where and any(isinstance(file, dict) and isinstance(file.get("permissions"), int) for file in files):
        raise ValueError("write the permissions of write_files in quotes: '0644'")
