"""The command line: parse, call the library, print. No logic."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from sevlaunch.cli.failures import print_interrupted, set_format
from sevlaunch.cli.signals import Interrupted, catch_signals, ignore_signals, signal_came
from sevlaunch.errors import EXIT_INTERRUPTED


def main() -> None:
    """Run the command and exit with its code."""
    # Most commands are over before there is any garbage worth a look, which would take a tenth of their time; what
    # waits has the collector back: interrupt.run.
    gc.disable()
    # Importing takes long enough to be interrupted, too.
    try:
        catch_signals()
        set_format(sys.argv[1:])
        from sevlaunch.cli.app import run

        run()
    # Python's own is what Ctrl-C raises before the signals are caught.
    except (Interrupted, KeyboardInterrupt):
        _end_interrupted()
    except Exception:
        if not signal_came():
            raise
        _end_interrupted()
    finally:
        ignore_signals()
        # Python looks for garbage once more when it ends.
        gc.freeze()


def _end_interrupted() -> NoReturn:
    ignore_signals()
    print_interrupted()
    sys.exit(EXIT_INTERRUPTED)
