"""Owns `python -m edgesppo`, the same as the command `edgesppo`."""

from edgesppo.cli import main

main(prog_name="edgesppo")
