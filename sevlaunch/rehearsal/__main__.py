"""``python -m sevlaunch.rehearsal FILE``: the helper process of a rehearsed guest. Started by ``sevlaunch up``."""

from __future__ import annotations

import sys

from sevlaunch.rehearsal.helper import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
