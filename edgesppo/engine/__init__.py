"""Continuous batching of many sequences over one context.

Token ids in, token ids out: nothing here knows of text, chats or who asks.
"""
