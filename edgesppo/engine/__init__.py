"""Continuous batching of many sequences over one llama.cpp context.

Token ids in, token ids out. This room knows no text, no chats and no callers.
"""
