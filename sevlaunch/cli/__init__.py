"""The command line: parse, call the library, print. No logic."""

from __future__ import annotations

from sevlaunch.cli.app import main

__all__ = ["main"]
