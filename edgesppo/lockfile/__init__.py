"""models.lock: which files a model consists of, with sizes, hashes and licence.

Locks are read, checked and written here, without network access and without knowing where the
files of models are stored.
"""
