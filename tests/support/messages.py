"""The check that an error is what it should be: its type, one line, and the words in it."""

from __future__ import annotations


def checked_message(error: BaseException, kind: type[BaseException], *words: str) -> str:
    """The message of an error of exactly this type, which is on one line and has these words."""
    message = str(error)
    assert type(error) is kind
    assert "\n" not in message
    for word in words:
        assert word in message
    return message
