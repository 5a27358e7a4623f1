"""`python -m edgesppo`: the same program as the command `edgesppo`."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; what happens while it is still being imported ends in no traceback."""
    try:
        from edgesppo.cli import main as command
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (MemoryError, ImportError, OSError) as error:
        from edgesppo.system.memory_guard import shortage

        if (text := shortage(error)) is None:
            raise
        sys.exit(f"edgesppo: {text}")
    command(prog_name="edgesppo")


if __name__ == "__main__":
    main()
