"""`python -m edgesppo`: the same program as the command `edgesppo`."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends without a traceback."""
    try:
        from edgesppo.cli import main as command
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    command(prog_name="edgesppo")


if __name__ == "__main__":
    main()
