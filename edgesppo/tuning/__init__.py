"""Measure which settings run a model fastest on this machine, remember them, and choose.

This room knows no chats, and not who waits for a measurement.
"""
