"""models.lock: which files a model consists of, with sizes, hashes and licence.

Reading, checking and writing; no network, and nothing of where models are kept.
"""
