"""The program of a bundle: edgesppo, and the Python that it calls in separate processes.

In a bundle `sys.executable` is this program, so it must understand `-c PROGRAM` as a Python does.
"""

import multiprocessing
import sys


def main() -> None:
    """Run a program that is given as text, or the command line."""
    multiprocessing.freeze_support()
    if len(sys.argv) > 2 and sys.argv[1] == "-c":
        program = sys.argv[2]
        sys.argv = ["-c", *sys.argv[3:]]
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
        return
    from edgesppo.__main__ import main as command

    command()


if __name__ == "__main__":
    main()
