"""Chats on disk: their turns, with a checksum on every line, and their KV state beside them.

This room knows no terminals.
"""
