"""Chats on the disk: their turns, checksummed line by line, and the KV state beside them."""
