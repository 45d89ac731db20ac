"""What a command prints where one of its streams is a terminal."""

import os
import pty
import subprocess
import threading
from pathlib import Path
from typing import Literal

from tests.conftest import Command


def on_a_terminal(command: Command, *words: str | Path, stream: Literal["stdout", "stderr"]) -> str:
    """All that comes to the terminal, lines ended by a newline alone."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        # A terminal gives what is there, not all that will be: only the error after its end says that it was all.
        try:
            while piece := os.read(ours, 65536):
                shown.extend(piece)
        except OSError:
            # Linux says so when the last one has closed the other side.
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        subprocess.run(
            command.argv(*words),
            env=command.environment,
            stdout=theirs if stream == "stdout" else subprocess.DEVNULL,
            stderr=theirs if stream == "stderr" else subprocess.DEVNULL,
            timeout=60,
        )
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return shown.decode().replace("\r\n", "\n")
