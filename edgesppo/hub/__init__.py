"""The Hugging Face hub over HTTP: listings, downloads that resume and are verified, model cards.

This room does not know where models are kept on this machine, which licences the user has
accepted, or what the files contain.
"""
