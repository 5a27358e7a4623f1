"""Models on this machine: find, pull, convert, verify and remove them.

Nothing here draws on a terminal or asks the user; callers pass callbacks for progress.
"""
