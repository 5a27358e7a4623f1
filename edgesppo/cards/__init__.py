"""Model cards: what is known of a model before it is here, and the README that goes with a file.

Plain texts and values from a file's header and its lock's entry; nothing is read or printed here.
"""
