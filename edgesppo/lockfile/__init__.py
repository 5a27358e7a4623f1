"""models.lock: which files a model consists of, with sizes, hashes and licence.

Locks are read, checked and written here, without network access. The store knows where the files
of pulled models are.
"""
