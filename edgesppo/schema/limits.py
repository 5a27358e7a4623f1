"""Owns what a schema may cost: sizes, counts, and the work of turning it into a grammar.

All are counted, none is timed, so that a schema is refused on every machine or on none.
"""

from __future__ import annotations

from edgesppo.errors import UsageError

MAX_BYTES = 1_000_000  # of the schema as JSON
MAX_NODES = 50_000  # values in it
MAX_NESTING = 200  # of arrays and objects in it
MAX_ALTERNATIVES = 1_000  # of anyOf and oneOf, after allOf was multiplied out
MAX_ENUM = 10_000
MAX_ITEMS = 1_000  # the largest minItems and maxItems
MAX_LENGTH = 1_000_000_000  # the largest minLength and maxLength
MAX_PATTERN = 2_000  # characters
MAX_GROUPS = 50  # groups inside one another in a pattern
MAX_RULES = 20_000
MAX_WORK = 250_000
MAX_SHOWN = 80  # characters of a place or a value in a message


def refused(where: str, text: str) -> UsageError:
    """The error for a place in the schema, given as a JSON pointer."""
    return UsageError(f"schema, at #{_shown(where)}: {text}")


def shown(value: object) -> str:
    """A value from the schema, short enough for a message, on one line."""
    try:
        return _shown(repr(value))
    except (ValueError, RecursionError):  # too many digits, or too deep
        return f"a {type(value).__name__}"


def _shown(text: str, room: int = MAX_SHOWN) -> str:
    clean = "".join(letter if letter.isprintable() else "?" for letter in text[: room + 1])
    return clean if len(clean) <= room else clean[: room - 3] + "..."


class Work:
    """What is left of the work that one schema may take; `where` is the place worked on."""

    def __init__(self) -> None:
        self.left = MAX_WORK
        self.where = ""

    def spend(self, n: int = 1) -> None:
        """Raise UsageError once it is used up."""
        self.left -= n
        if self.left < 0:
            raise refused(
                self.where,
                "too much for a grammar: fewer alternatives, shorter patterns or smaller bounds "
                "are needed here or before",
            )
