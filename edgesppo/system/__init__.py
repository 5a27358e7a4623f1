"""The machine and its operating system: files, locks, folders, signals, memory, untrusted text.

Only the standard library is used. Nothing here knows about models, chats or networks, nor what
the files, events and parameters that pass through it mean.
"""
