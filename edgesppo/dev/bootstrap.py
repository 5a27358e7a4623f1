"""Sets up a checkout with the Python that runs it, or says which Pythons it takes.

    python3 edgesppo/dev/bootstrap.py VENV [EXTRA ...]

makes the virtual environment VENV hold edgesppo with these extras. Python 2.7 and all of 3 can
parse this file, so that an old one prints a line and no SyntaxError.
"""
# ruff: noqa: PTH100, PTH110, PTH118, PTH120, UP031

import os
import signal
import sys

OLDEST, NEWEST = (3, 10), (3, 13)

if __name__ == "__main__":
    # As long as there is nothing to clean up, Ctrl-C ends this process at once and in silence.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    found = tuple(sys.version_info[:2])
    if not OLDEST <= found <= NEWEST:
        names = ["python3.%d" % minor for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
        folders = os.environ.get("PATH", "").split(os.pathsep)
        here = [n for n in names if any(os.access(os.path.join(f, n), os.X_OK) for f in folders)]
        sys.stderr.write("This is Python %d.%d; " % found)
        sys.stderr.write("edgesppo runs on %d.%d to %d.%d: " % (OLDEST + NEWEST))
        sys.stderr.write("" if here else "install one of these, then ")
        sys.stderr.write("`make try PYTHON=%s`\n" % (here or names)[0])
        if found < OLDEST:
            sys.exit(1)
    root = os.path.dirname(os.path.abspath(__file__))
    while not os.path.exists(os.path.join(root, "pyproject.toml")):
        root = os.path.dirname(root)
    sys.path[0] = root
    from edgesppo.dev.bootstrap_setup import main

    sys.exit(main(sys.argv[1:]))
