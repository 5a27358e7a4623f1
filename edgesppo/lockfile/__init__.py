"""models.lock: which files a model consists of, with sizes, hashes and licence.

Locks are read, checked and written here, without network access. Where the models that were pulled
lie, the store knows.
"""
