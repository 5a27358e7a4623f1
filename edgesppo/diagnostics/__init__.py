"""Diagnostics: check this machine and installation (doctor), and a new model file (self-test)."""
