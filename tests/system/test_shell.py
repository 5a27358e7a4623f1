"""The commands that messages advise can be typed into the shell of the system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgesppo.system.shell import shell_word

if TYPE_CHECKING:
    import pytest


def test_a_path_is_one_word_of_any_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("my model.gguf", "it's", "plain")
    monkeypatch.setattr(os, "name", "posix")
    assert [*map(shell_word, words)] == ["'my model.gguf'", "'it'\"'\"'s'", "plain"]
    monkeypatch.setattr(os, "name", "nt")
    assert [*map(shell_word, words)] == ['"my model.gguf"', '"it\'s"', "plain"]
    words = ("C:\\a-b\\m_1.gguf", "C:\\a&b\\m.gguf", "C:\\my models\\")
    assert [*map(shell_word, words)] == [words[0], f'"{words[1]}"', '"C:\\my models\\\\"']
