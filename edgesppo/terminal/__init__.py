"""Text on a terminal: columns, colours, Markdown, progress, keyboard, editor, clipboard.

Nothing here depends on the chat. `cells`, `columns`, `format`, `highlight`, `markdown` and `style`
only compute text; `screen`, `stream`, `output` and `progress` write it.
"""
