"""Tab in the chat: what it offers, and that it stays cheap."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from edgesppo.repl.completion import CommandCompleter
from edgesppo.sessions import folder
from edgesppo.sessions.folder import Sessions

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from edgesppo.repl.state import ReplState


def _offered(sessions: Sessions, line: str) -> list[str]:
    state = cast("ReplState", SimpleNamespace(setup=SimpleNamespace(sessions=sessions)))
    completions = CommandCompleter(state).get_completions(Document(line), CompleteEvent())
    return [completion.text for completion in completions]


def test_load_offers_the_chats_the_latest_first_and_reads_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, name in enumerate(("rome", "paris", "rosa", "river view")):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"a chat")
        os.utime(path, (1_000 - age, 1_000 - age))
    read: list[Path] = []
    monkeypatch.setattr(folder, "read", lambda path: (read.append(path), b"")[1])
    assert _offered(Sessions(tmp_path), "/load ") == ["rome", "paris", "rosa", "river view"]
    assert _offered(Sessions(tmp_path), "/load ro") == ["rome", "rosa"]
    assert _offered(Sessions(tmp_path), "/load river v") == ["river view"]
    assert read == []
    assert len(Sessions(tmp_path).entries()) == len(read) == 4
