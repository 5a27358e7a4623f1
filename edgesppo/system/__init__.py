"""The machine and its operating system: files, locks, folders, signals, memory, untrusted text.

Standard library only. Nothing here knows of models, chats or networks.
"""
