"""Where each value of a profile came from: the file, line and column behind a key."""

from __future__ import annotations

from msgspec import Struct

from sevlaunch.profile.source import Mark, Node

# The keys and list indexes that lead to a value.
KeyPath = tuple[str | int, ...]


class Positions(Struct, frozen=True):
    """Where each value of a profile came from."""

    root: Node

    def mark(self, path: KeyPath) -> Mark | None:
        """Where the value at ``path`` stands, or None if the profile does not say it."""
        node: Node | None = self.root
        for part in path:
            node = node.child(part) if node else None
        return node.mark if node else None

    def nearest(self, path: KeyPath, *, key: bool = False) -> Mark:
        """Where the value at ``path`` stands, or else the innermost value around it that the profile does say.

        With ``key``, where its key stands rather than its value.
        """
        node = self.root
        for part in path:
            child = node.child(part)
            if child is None:
                return node.key_mark or node.mark
            node = child
        return node.key_mark or node.mark if key else node.mark
