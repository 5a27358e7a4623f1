"""Owns `python -m edgesppo`, the same as the command `edgesppo`."""

import sys

INTERRUPTED = 130


def main() -> None:
    """The command line; Ctrl-C while it is still being read leaves without a traceback."""
    try:
        from edgesppo.cli import main as command
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    command(prog_name="edgesppo")


if __name__ == "__main__":
    main()
