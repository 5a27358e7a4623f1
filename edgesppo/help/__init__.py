"""The manual that ships: pages as Markdown files beside this one, and complete examples.

`edgesppo help` shows them; on a code host they can be read as they are, from README.md on.
"""
