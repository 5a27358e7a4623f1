"""Text on a terminal: columns, colours, Markdown, progress, keyboard, editor, clipboard.

`format` words what the other rooms measure. `cells`, `columns`, `highlight`, `markdown` and `style`
only compute text; `screen`, `stream`, `output` and `progress` write it.
"""
