"""The two help pages that are generated: the commands, and the Python API."""
