"""Compiles llama.cpp for this machine, and keeps the wheel for every Python.

`edgesppo build` and the set-up of a checkout share this room. Standard library only: the set-up
uses it before anything is installed.
"""
