"""Limits on a schema: its size, its counts, and the work of compiling it to a grammar.

Work is counted instead of timed, so that a schema is refused on all machines or on none.
"""

from __future__ import annotations

from edgesppo.errors import UsageError

MAX_BYTES = 1_000_000  # of the schema as JSON
MAX_NODES = 50_000  # values in the schema
MAX_NESTING = 200  # of arrays and objects in the schema
MAX_ALTERNATIVES = 1_000  # of anyOf and oneOf, after allOf has been expanded
MAX_ENUM = 10_000
MAX_ITEMS = 1_000  # the largest minItems and maxItems
MAX_LENGTH = 1_000_000_000  # the largest minLength and maxLength
MAX_PATTERN = 2_000  # characters
MAX_GROUPS = 50  # nested groups in a pattern
MAX_RULES = 20_000
MAX_WORK = 250_000
MAX_SHOWN = 80  # characters of a pointer or a value in a message


def schema_error(where: str, text: str) -> UsageError:
    """The error to raise; `where` is the JSON pointer of the part of the schema at fault."""
    return UsageError(f"schema, at #{_shown(where)}: {text}")


def quoted(value: object) -> str:
    """A value from the schema on one line, cut to a length that suits a message."""
    try:
        return _shown(repr(value))
    except (ValueError, RecursionError):  # too many digits, or nested too deeply
        return f"a {type(value).__name__}"


def _shown(text: str, limit: int = MAX_SHOWN) -> str:
    clean = "".join(letter if letter.isprintable() else "?" for letter in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


class Work:
    """The work that may still be spent on schemas; `where` is the JSON pointer worked on.

    It is enough for `schemas` as complex as one may be.
    """

    def __init__(self, schemas: int = 1) -> None:
        self.left = schemas * MAX_WORK
        self.where = ""

    def spend(self, n: int = 1) -> None:
        """Count `n` units of work; raises UsageError once the limit is exceeded."""
        self.left -= n
        if self.left < 0:
            raise schema_error(
                self.where,
                "too complex for a grammar; use fewer alternatives, shorter patterns or smaller "
                "bounds here or before",
            )
