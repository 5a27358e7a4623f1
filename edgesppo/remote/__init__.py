"""A model that another edgesppo serves, used like one that is loaded here.

The chat's template, its history and its sampling are this process's; the server tokenises and
computes. Token ids go over the wire, so that a chat's prefix stays in the server's cache.

`pool.py`, `worker.py` and `ray_connection.py` are apart: they share work out to the machines of a
Ray cluster.
"""
