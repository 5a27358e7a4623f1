"""A conversation: the chat template, the detokenizer, one answer in the making, and `Chat`.

Nothing here knows of files, terminals or HTTP.
"""
