"""A model that another edgesppo serves, used like one that is loaded here.

The chat's template, its history and its sampling are this process's; the server tokenises and
computes. Token ids go over the wire, so that a chat's prefix stays in the server's cache.

`ray_connection.py` is apart: it connects to a Ray cluster.
"""
