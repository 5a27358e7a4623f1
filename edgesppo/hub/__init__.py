"""The Hugging Face hub over HTTP: listings, downloads that resume and are verified, model cards.

Nothing here knows where models are kept on this machine.
"""
