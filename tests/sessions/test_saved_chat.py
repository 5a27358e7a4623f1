"""Chats on disk come back complete; their KV state saves time or is silently ignored.

How turns survive the end of a process is tested in test_session_faults.py.
"""

from __future__ import annotations

import math
import os
import stat
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.chat.dialogue import dialogue
from edgesppo.llama.context import Context
from edgesppo.sessions import file as chat_file
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.file import state_path
from edgesppo.system import jsonl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.chat.chat import Chat
    from edgesppo.llama.batch import Batch
    from edgesppo.loaded_model import LoadedModel

HEADER = {
    "edgesppo": "chat",
    "version": 1,
    "by": {"name": "x", "path": "x", "fingerprint": "x", "n_ctx": 512},
    "system": None,
    "sampling": {},
}
TURNS = ["My name is Ada.", "What is 2 plus 3?"]


@pytest.fixture
def chat(demo: LoadedModel) -> Chat:
    made = demo.chat(temperature=0)
    for turn in TURNS:
        made.ask(turn)
    return made


def _resumed(path: Path, gguf: Path, **options: int) -> tuple[str, int]:
    """The next answer, as in a new process, and how many tokens were cached."""
    with edgesppo.load(gguf, **options) as model:  # type: ignore[arg-type]
        chat = model.resume(path, temperature=0)
        return chat.ask("What is my name?"), chat.last.usage.cached_tokens


def test_a_chat_goes_on_after_a_restart_without_a_new_prefill(
    chat: Chat, demo: LoadedModel, demo_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ada.chat"
    demo.save(chat, path)
    held = chat.last.usage.prompt_tokens + chat.last.usage.completion_tokens
    answer, cached = _resumed(path, demo_gguf)
    assert cached >= held - 1
    assert answer == chat.ask("What is my name?")


def test_an_answer_stopped_in_a_decode_comes_back_beyond_the_window(
    demo: LoadedModel, demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = demo.chat(temperature=0)
    window = demo._interior.engine.model.weights.n_swa
    while not chat.messages or len(dialogue(chat).history_ids()) < 3 * window:
        chat.ask("What is the capital of France?")
    decode = Context.decode
    left = 3

    def interrupted(context: Context, batch: Batch) -> None:
        nonlocal left
        decode(context, batch)
        left -= 1
        if not left:
            raise KeyboardInterrupt  # its cells are there, its ids are not

    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            chat.ask("Please tell me a story.", temperature=5.0)
    demo.save(chat, tmp_path / "stopped.chat")
    with edgesppo.load(demo_gguf) as other:
        resumed = other.resume(tmp_path / "stopped.chat")
        ids = [*dialogue(resumed).history_ids(), 2]
        assert (
            other._interior.engine.count_cached(ids)
            == demo._interior.engine.count_cached(ids)
            > 2 * demo._interior.engine.model.weights.n_swa
        )


def test_both_files_are_their_owners_only(chat: Chat, demo: LoadedModel, tmp_path: Path) -> None:
    demo.save(chat, tmp_path / "ada.chat")
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["ada.chat", "ada.chat.kv"]
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "damage", ["missing", "cut", "flipped", "empty", "foreign", "longer", "pipe"]
)
def test_a_state_that_does_not_fit_is_left_out_silently(
    chat: Chat, demo: LoadedModel, demo_gguf: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "ada.chat"
    demo.save(chat, path)
    state = state_path(path)
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
    elif damage == "pipe" and hasattr(os, "mkfifo"):
        os.mkfifo(state)
    answer, cached = _resumed(path, demo_gguf)
    assert cached == 0
    assert answer == chat.ask("What is my name?")


def test_a_state_of_other_settings_is_left_out(
    chat: Chat, demo: LoadedModel, demo_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ada.chat"
    demo.save(chat, path)
    assert _resumed(path, demo_gguf, cache_type="f32")[1] == 0  # type: ignore[arg-type]


def test_another_model_resumes_the_turns_but_not_their_tokens_or_state(
    chat: Chat, demo: LoadedModel, demo_f32: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ada.chat"
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
    size = state_path(tmp_path / "0").stat().st_size
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
    ("damage", "complaint"),
    [
        (lambda _: b"", "is empty, expected a saved chat"),
        (lambda _: b"dear diary", "not a saved chat, or damaged from its first line on"),
        (lambda data: data.replace(b"name is Ada", b"name is Eve", 1), "damaged after turn 0"),
        (lambda data: data + b"more\n", "damaged after turn 2"),
        (lambda _: jsonl.encode([{"edgesppo": "chat", "version": 2}])[0], "a newer edgesppo"),
        (lambda _: jsonl.encode([[1]])[0], "not a saved chat"),  # type: ignore[list-item]
    ],
)
def test_a_damaged_chat_is_refused_in_one_line_and_left_alone(
    chat: Chat,
    demo: LoadedModel,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    complaint: str,
) -> None:
    path = tmp_path / "bad"
    demo.save(chat, path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(edgesppo.BadChat, match=complaint) as caught:
        demo.resume(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        ({"top_p": 7, "seed": 5}, r"ignoring an invalid setting: top_p .* is 7"),
        ({"hot": 1, "seed": 5}, "no sampling parameter is called 'hot'"),
        ({"logit_bias": [[50, "x"]], "seed": 5}, "has 'x' for token 50"),
        ({"logit_bias": {"-1": 1}, "seed": 5}, "logit_bias .* has '-1', expected token ids"),
    ],
)
def test_a_setting_that_makes_no_sense_is_left_out_with_a_warning(
    demo: LoadedModel, tmp_path: Path, sampling: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "odd"
    path.write_bytes(jsonl.encode([HEADER | {"sampling": sampling}])[0])
    with pytest.warns(UserWarning, match=complaint) as caught:
        chat = demo.resume(path)
    assert len(caught) == 1
    assert chat.params == demo._interior.defaults.replace(seed=5)


@pytest.mark.parametrize("bias", [[[50, -1.0], [7, 2]], {"50": -1, "7": 2}])
def test_a_bias_is_read_as_pairs_and_as_a_mapping(
    demo: LoadedModel, tmp_path: Path, bias: object
) -> None:
    path = tmp_path / "biased"
    path.write_bytes(jsonl.encode([HEADER | {"sampling": {"logit_bias": bias}}])[0])
    assert demo.resume(path).params.logit_bias == ((7, 2.0), (50, -1.0))


@pytest.mark.parametrize(
    "event",
    [
        {"turn": 2, "user": "x", "assistant": "y", "ids": None, "left_out": 0},
        {"turn": 0, "user": "x", "assistant": "y", "ids": None, "left_out": 0},
        {"turn": 1, "user": None, "assistant": "y", "ids": None, "left_out": 0},
        {"turn": 1, "user": "x", "assistant": "y", "ids": [1, -5], "left_out": 0},
        {"turn": 1, "user": "x", "assistant": "y", "ids": "xy", "left_out": 0},
        {"turn": 1, "user": "x", "assistant": "y", "ids": {"a": 1}, "left_out": 0},
        {"turn": 1, "user": "x", "assistant": "y", "ids": None, "left_out": 9},
        {"keep": 1},
        {"keep": True},
        {"by": None},
        {"by": {"name": "x"}},
        {"system": 3, "sampling": {}},
        {"something": "else"},
    ],
)
def test_events_that_make_no_sense_are_damage(
    demo: LoadedModel, tmp_path: Path, event: dict[str, Any]
) -> None:
    path = tmp_path / "bad"
    path.write_bytes(jsonl.encode([HEADER, event])[0])
    with pytest.raises(edgesppo.BadChat, match="damaged after turn 0"):
        demo.resume(path)


def test_a_closed_model_saves_nothing(demo_gguf: Path, tmp_path: Path) -> None:
    with edgesppo.load(demo_gguf) as model:
        chat = model.chat(temperature=0)
        chat.ask(TURNS[0])
    with pytest.raises(edgesppo.Closed):
        model.save(chat, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_clear_error(
    chat: Chat, demo: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(edgesppo.OutputError, match="cannot write"):
        demo.save(chat, tmp_path / "none" / "a")


def test_a_chat_damaged_into_short_lines_takes_no_more_than_its_size() -> None:
    data = jsonl.encode([HEADER])[0] + b"\n" * 8_000_000
    tracemalloc.start()
    try:
        transcript, (end, _) = chat_file.parse(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert transcript is not None
    assert end == data.index(b"\n") + 1
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "value", [b"1e999", b"-1", b"9" * 4000, b"9" * 300, b"NaN", b"true", b"[" * 2000, b"null"]
)
@pytest.mark.parametrize(
    "name", [b'"n_ids": ', b'"n_state": ', b'"prefill": [', b'"prefill": [3, ']
)
def test_a_damaged_header_of_a_kv_state_is_left_out(
    tmp_path: Path, name: bytes, value: bytes
) -> None:
    path, binding = tmp_path / "a.kv", kv_snapshot.Binding("m", "l", "s")
    snapshot = kv_snapshot.Snapshot([1, 2, 3], memoryview(bytes(64)), (3, 0.5))
    kv_snapshot.write(path, binding, snapshot)
    data = path.read_bytes()
    at = data.index(name) + len(name)
    at = at if name != b'"prefill": [3, ' else data.index(b"3, ") + 3
    stop = min(n for mark in b",]}" if (n := data.find(mark, at)) > 0)
    start = len(kv_snapshot.MAGIC) + 4
    changed = data[start:at] + value + data[stop:]
    size = int.from_bytes(data[start - 4 : start], "little") + len(value) - (stop - at)
    path.write_bytes(data[: start - 4] + size.to_bytes(4, "little") + changed)
    found = kv_snapshot.read(path, binding)
    assert found is None or (found.prefill[0] == 3 and math.isfinite(found.prefill[1]))
