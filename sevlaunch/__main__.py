"""``python -m sevlaunch``: the same as the ``sevlaunch`` command."""

from sevlaunch.cli.main import main

if __name__ == "__main__":
    main()
