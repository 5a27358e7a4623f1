"""Text on a terminal: cells, colours, Markdown, progress, the editor, the clipboard.

Nothing here knows what a chat is.
"""
