"""Chats on disk: they come back whole, their KV state saves time or is silently left out."""

from __future__ import annotations

import json
import random
import stat
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo import saved, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.chat import Chat
    from edgesppo.loaded import LoadedModel

TURNS = ["My name is Ada.", "What is 2 plus 3?"]


@pytest.fixture
def chat(demo: LoadedModel) -> Chat:
    made = demo.chat(temperature=0)
    for turn in TURNS:
        made.ask(turn)
    return made


def _resumed(path: Path, gguf: Path, **options: int) -> tuple[str, int]:
    """The next answer in a new process's stead, and how many tokens were cached."""
    with edgesppo.load(gguf, **options) as model:  # type: ignore[arg-type]
        chat = model.resume(path, temperature=0)
        return chat.ask("What is my name?"), chat.last.usage.cached_tokens


def test_a_chat_goes_on_after_a_restart_without_a_new_prefill(
    chat: Chat, demo: LoadedModel, demo_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ada.json"
    demo.save(chat, path)
    held = chat.last.usage.prompt_tokens + chat.last.usage.completion_tokens
    answer, cached = _resumed(path, demo_gguf)
    assert cached >= held - 1
    assert answer == chat.ask("What is my name?")


def test_both_files_are_their_owners_only(chat: Chat, demo: LoadedModel, tmp_path: Path) -> None:
    demo.save(chat, tmp_path / "ada.json")
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["ada.json", "ada.json.kv"]
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty", "foreign", "longer"])
def test_a_state_that_does_not_fit_is_left_out_silently(
    chat: Chat, demo: LoadedModel, demo_gguf: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "ada.json"
    demo.save(chat, path)
    state = saved.state_path(path)
    whole = state.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    written = {
        "cut": whole[:-50],
        "flipped": bytes(flipped),
        "empty": b"",
        "foreign": whole.replace(b'"library": "', b'"library": "x'),
        "longer": whole + b"\0",
    }
    state.unlink()
    if damage in written:
        state.write_bytes(written[damage])
    answer, cached = _resumed(path, demo_gguf)
    assert cached == 0
    assert answer == chat.ask("What is my name?")


def test_a_state_of_other_settings_is_left_out(
    chat: Chat, demo: LoadedModel, demo_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ada.json"
    demo.save(chat, path)
    assert _resumed(path, demo_gguf, cache_type="f32")[1] == 0  # type: ignore[arg-type]


def test_another_model_resumes_the_turns_but_not_their_tokens_or_state(
    chat: Chat, demo: LoadedModel, demo_f32: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ada.json"
    demo.save(chat, path)
    with edgesppo.load(demo_f32) as other:
        resumed = other.resume(path, temperature=0)
        assert [m.content for m in resumed.messages] == [m.content for m in chat.messages]
        assert all(m.ids is None for m in resumed.messages)
        assert "Ada" in resumed.ask("What is my name?")
        assert resumed.last.usage.cached_tokens == 0


def test_states_are_capped_and_the_oldest_go_first(
    chat: Chat, demo: LoadedModel, tmp_path: Path
) -> None:
    demo.save(chat, tmp_path / "0")
    size = saved.state_path(tmp_path / "0").stat().st_size
    for name in "123":
        demo.save(chat, tmp_path / name, snapshots=2 * size)
    states = sorted(file.name for file in tmp_path.glob("*.kv"))
    assert states == ["2.kv", "3.kv"]
    assert all((tmp_path / name).exists() for name in "0123")


def test_no_state_is_written_where_none_is_allowed(
    chat: Chat, demo: LoadedModel, tmp_path: Path
) -> None:
    demo.save(chat, tmp_path / "a", snapshots=0)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a saved chat"),
        ("[]", "its version is None"),
        ('{"version": 2}', "its version is 2, expected 1"),
        ('{"version": 1, "messages": 3}', "a list of messages"),
        ('{"version": 1, "system": 3, "messages": []}', "a system text"),
        ('{"version": 1, "messages": [{"role": "assistant", "content": "x"}]}', "message 1 is not"),
        ('{"version": 1, "messages": [{"role": "user", "content": null}]}', "message 1 is not"),
        ('{"version": 1, "messages": [{"role": "user", "content": "x"}]}', "has no answer"),
    ],
)
def test_a_damaged_chat_is_refused_in_one_line(
    demo: LoadedModel, tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(edgesppo.BadChat, match=complaint) as caught:
        demo.resume(path)
    assert "\n" not in str(caught.value)


def test_ids_that_are_no_tokens_are_left_out(demo: LoadedModel, tmp_path: Path, chat: Chat) -> None:
    path = tmp_path / "a"
    demo.save(chat, path)
    data = json.loads(path.read_text())
    for ids in ("x", [1, "y"], [-5], {"a": 1}):
        data["messages"][1]["ids"] = ids
        path.write_text(json.dumps(data))
        assert demo.resume(path).messages[1].ids is None


def test_a_folder_that_is_not_there_is_one_clear_error(
    chat: Chat, demo: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(edgesppo.OutputError, match="cannot be written"):
        demo.save(chat, tmp_path / "none" / "a")


def test_the_fingerprint_tells_models_apart(tmp_path: Path) -> None:
    """By their header, their size, and their weights, which differ everywhere in a fine-tune."""
    rng = random.Random(3)
    header, weights, tuned = rng.randbytes(999), rng.randbytes(300_000), rng.randbytes(300_000)
    files = [header + weights, header + tuned, header + weights + b"x", b"x" + header[1:] + weights]
    marks = set()
    for n, data in enumerate(files):
        path = tmp_path / str(n)
        path.write_bytes(data)
        with path.open("rb") as file:
            marks.add(snapshot.fingerprint(file, len(header)))
            assert snapshot.fingerprint(file, len(header)) in marks, "it is the same every time"
    assert len(marks) == len(files)
