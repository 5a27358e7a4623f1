"""Conversations: the chat template, the streaming detokenizer, the generation loop and `Chat`.

This room knows no files, terminals or HTTP.
"""
