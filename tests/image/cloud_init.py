"""What cloud-init makes of user data, by its own code: a program for a test to run, with cloud-init on its path.

It reads user data and writes a JSON object: ``types``, those of the documents in it, and ``config``, what all its
documents of #cloud-config come to.
"""

from __future__ import annotations

import json
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast
from unittest.mock import MagicMock

# What cloud-init imports to reach servers and to fill in templates, which nobody needs to merge documents.
ABSENT = ("requests", "jsonpatch", "configobj", "oauthlib", "jinja2", "netifaces", "serial", "passlib")


class StandIns(MetaPathFinder, Loader):
    """Modules of these names that can be imported, and do nothing."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The module, if it is one of those."""
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Whatever is asked of it, it has."""
        return cast("ModuleType", MagicMock(__path__=[], __spec__=spec))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is done."""


def main() -> None:
    """As the module says."""
    sys.meta_path.insert(0, StandIns())
    from cloudinit import handlers, user_data  # type: ignore[import-not-found]
    from cloudinit.handlers.cloud_config import CloudConfigPartHandler  # type: ignore[import-not-found]

    message = user_data.UserDataProcessor(MagicMock()).process(sys.stdin.buffer.read())
    handler = CloudConfigPartHandler(MagicMock())
    types = []
    for part in message.walk():
        kind = part.get_content_type()
        if kind == "multipart/mixed":
            continue
        types.append(kind)
        if kind == "text/cloud-config":
            payload = part.get_payload(decode=True).decode()
            handler.handle_part(None, kind, part.get_filename(), payload, handlers.PER_INSTANCE, part)
    json.dump({"types": types, "config": handler.cloud_buf}, sys.stdout)


if __name__ == "__main__":
    main()
