"""Chats that save themselves: a restart loses no turn and, if the KV state fits, no prefill."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.chat.dialogue import dialogue
from edgesppo.sessions import kv_snapshot, kv_state, persistent_chat
from edgesppo.sessions.folder import Sessions
from tests.support.faulty import Counting, Faulty

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

TURNS = ["My name is Ada.", "What is 2 plus 3?"]
QUESTION = "What is my name?"


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "sessions", Counting())


def test_a_kept_chat_goes_on_where_it_was_after_a_restart(
    demo_gguf: Path, sessions: Sessions
) -> None:
    sampling: dict[str, Any] = {"temperature": 0, "system": "Be brief.", "stop": ["@"]}
    with edgesppo.load(demo_gguf) as model:
        with model.keep(sessions.open("ada"), **sampling) as kept:
            assert kept.resumed is None
            for turn in TURNS:
                kept.chat.ask(turn)
                kept.record()
            messages, usage = kept.chat.messages, kept.chat.last.usage
        with sessions.open("ada") as session:
            expected = model.keep(session).chat.ask("What is my name?")
    with edgesppo.load(demo_gguf) as model, model.keep(sessions.open("ada")) as kept:
        assert kept.resumed is not None
        assert kept.resumed.n_turns == 2
        assert kept.resumed.n_tokens >= usage.prompt_tokens + usage.completion_tokens - 1
        assert kept.resumed.saved_s is not None
        assert kept.resumed.other_model is None
        assert (kept.chat.messages, kept.chat.system) == (messages, "Be brief.")
        assert (kept.chat.params.temperature, kept.chat.params.stop) == (0, ("@",))
        assert kept.chat.ask("What is my name?") == expected
        assert kept.chat.last.usage.cached_tokens >= kept.resumed.n_tokens


def _talk(model: LoadedModel, sessions: Sessions, name: str, **options: Any) -> Path:
    """Save a chat of two turns and close it; returns the path of its KV state."""
    with model.keep(sessions.open(name), **{"temperature": 0, **options}) as kept:
        for turn in TURNS:
            kept.chat.ask(turn)
            kept.record()
        return kept.session.state_path


def test_a_chat_that_is_left_is_the_one_used_last(demo: LoadedModel, sessions: Sessions) -> None:
    for name in ("one", "two"):
        _talk(demo, sessions, name)
    os.utime(sessions.folder / "one.jsonl", (999, 999))
    os.utime(sessions.folder / "two.jsonl", (1000, 1000))
    with demo.keep(sessions.open("one")):
        pass
    with sessions.latest() as session:
        assert session.name == "one"


def _go_on(model: LoadedModel, sessions: Sessions) -> tuple[str, int, persistent_chat.Resumed]:
    """The next answer, how many of its tokens were cached, and what was reported as restored."""
    with sessions.open("ada") as session:
        kept = model.keep(session)
        answer = kept.chat.ask(QUESTION)
        assert kept.resumed is not None
        return answer, kept.chat.last.usage.cached_tokens, kept.resumed


def test_every_turn_is_there_though_the_process_never_came_to_leave(
    demo: LoadedModel, sessions: Sessions
) -> None:
    with sessions.open("ada") as session:  # what a kill leaves: nobody closes the chat
        kept = demo.keep(session, temperature=0)
        for turn in TURNS:
            kept.chat.ask(turn)
            kept.record()
    assert not session.state_path.exists()  # so short a prefill is not worth writing it
    with sessions.open("ada") as session:
        assert demo.keep(session).chat.messages == kept.chat.messages


def test_the_state_is_written_after_a_turn_once_its_prefill_would_take_long(
    demo: LoadedModel, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_state, "WORTH_S", 0.0)
    monkeypatch.setattr(kv_state, "WORTH_WRITES", 0.0)
    with sessions.open("ada") as session:
        kept = demo.keep(session, temperature=0)
        sizes = []
        for turn in TURNS:
            kept.chat.ask(turn)
            kept.record()
            sizes.append(session.state_path.stat().st_size)
        assert sizes[0] < sizes[1]
        monkeypatch.setattr(kv_state, "WORTH_WRITES", 1e9)  # a disk that is too slow for that
        kept.chat.ask(QUESTION)
        kept.record()
        assert session.state_path.stat().st_size == sizes[1]


def test_a_ctrl_c_ends_a_long_write_of_the_state_and_loses_no_turn(
    demo: LoadedModel, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def interrupt(n_bytes: int) -> None:
        told.append(n_bytes)
        signal.raise_signal(signal.SIGINT)

    kept = demo.keep(sessions.open("ada"), temperature=0)
    kept.chat.ask(TURNS[0])
    kept.save(interrupt)
    assert not told, "so short a write is not announced"
    monkeypatch.setattr(kv_state, "SLOW_BYTES", 0)
    size = kept.session.state_path.stat().st_size
    kept.chat.ask(TURNS[1])
    with pytest.raises(KeyboardInterrupt):
        kept.close(interrupt)
    assert kept.session.closed
    (entry,) = sessions.entries()
    assert (entry.n_turns, entry.n_state_bytes, len(told)) == (2, size, 1)


def test_undo_regenerate_and_clear_are_kept(demo: LoadedModel, sessions: Sessions) -> None:
    state = _talk(demo, sessions, "ada")
    with demo.keep(sessions.open("ada")) as kept:
        kept.chat.undo()
        kept.record()
        for _ in kept.chat.regenerate(temperature=2, seed=3, max_tokens=5):
            pass
        messages = list(kept.chat.messages)
    with demo.keep(sessions.open("ada")) as kept:
        assert kept.chat.messages == messages
        assert len(messages) == 2
        assert state.exists()
        kept.chat.clear()
    assert not state.exists()
    with demo.keep(sessions.open("ada")) as kept:
        assert kept.chat.messages == []
        assert kept.resumed == persistent_chat.Resumed(0, 0, None, None)


REMOVED = "turns were removed since its KV cache was saved, or no longer fit the context"


def test_a_state_that_cannot_go_back_to_what_undo_left_is_deleted_or_told(
    demo_gguf: Path, sessions: Sessions
) -> None:
    with edgesppo.load(demo_gguf) as model:
        with model.keep(sessions.open("ada"), temperature=0, max_tokens=1) as kept:
            window = model._interior.engine.model.weights.n_swa
            while dialogue(kept.chat).n_tokens() < 6 * window + 32:
                kept.chat.ask(TURNS[1])
        state = kept.session.state_path
        held = state.read_bytes()
        kept = model.keep(sessions.open("ada"))
        kept.close()
        assert kept.resumed is not None
        assert (kept.resumed.n_tokens or 0) > 6 * window
        again = model.keep(sessions.open("ada"), max_tokens=512)
        again.session.close()
        assert again.resumed is not None
        assert again.resumed.why_nothing == REMOVED  # the next prompt is trimmed
    with edgesppo.load(demo_gguf) as model:
        with model.keep(sessions.open("ada")) as kept:
            for _ in range(3):
                kept.chat.undo()
        assert not state.exists()
    state.write_bytes(held)  # as if the process had been killed
    with edgesppo.load(demo_gguf) as model, sessions.open("ada") as session:
        kept = model.keep(session)
        assert kept.resumed is not None
        assert (kept.resumed.n_tokens, kept.resumed.saved_s) == (0, None)
        assert kept.resumed.why_nothing == REMOVED


def test_cells_that_are_still_in_memory_need_no_file(demo_gguf: Path, sessions: Sessions) -> None:
    with edgesppo.load(demo_gguf) as model:
        for _ in range(2):
            with model.keep(sessions.open("ada"), temperature=0, snapshots=0) as kept:
                kept.chat.ask(TURNS[0])
        assert kept.resumed is not None
        assert (kept.resumed.n_tokens or 0) > 10
        assert kept.resumed.why_nothing is None
        assert not kept.session.state_path.exists()


DAMAGED = "its saved KV cache is damaged, or there is no room for it"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("missing", "its KV cache was not saved"),
        ("cut", DAMAGED),
        ("flipped", DAMAGED),
        ("foreign", DAMAGED),
        ("of another model", "its KV cache is of another model"),
    ],
)
def test_without_a_state_that_fits_the_answer_is_the_same(
    demo: LoadedModel, demo_gguf: Path, sessions: Sessions, damage: str, why: str
) -> None:
    state = _talk(demo, sessions, "ada")
    whole = state.read_bytes()
    expected = _go_on(demo, sessions)[0]
    foreign = whole.replace(demo._interior.identity.mark.fingerprint.encode(), b"0" * 64)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    state.unlink()
    spoilt = {"cut": whole[:-1], "flipped": flipped, "foreign": b"x", "of another model": foreign}
    if damage in spoilt:
        assert spoilt[damage] != whole
        state.write_bytes(spoilt[damage])
    with edgesppo.load(demo_gguf) as model:
        answer, cached, resumed = _go_on(model, sessions)
    assert (answer, cached) == (expected, 0)
    assert resumed == persistent_chat.Resumed(2, 0, None, None, why)


def test_the_time_saved_is_measured_or_not_said(
    demo: LoadedModel, demo_gguf: Path, sessions: Sessions
) -> None:
    state = _talk(demo, sessions, "ada")
    held = kv_snapshot.read(state, demo._interior.identity.binding)
    assert held is not None
    tokens, seconds = held.prefill
    assert tokens > 0
    assert seconds > 0
    for prefill, saving in (((tokens, 1e6), True), ((0, 0.0), False)):
        made = kv_snapshot.Snapshot(held.ids, held.cells, prefill)
        kv_snapshot.write(state, demo._interior.identity.binding, made)
        with edgesppo.load(demo_gguf) as model:
            resumed = _go_on(model, sessions)[2]
        assert resumed.n_tokens > 0
        assert (resumed.saved_s is not None and resumed.saved_s > 1e6) == saving


def test_the_rate_is_that_of_the_longest_prefill(demo: LoadedModel, sessions: Sessions) -> None:
    with demo.keep(sessions.open("ada"), temperature=0) as kept:
        kept.chat.ask("Please tell me this: what is the capital of France, and what is 2 plus 3?")
        kept.record()
        longest = kept.chat.last.usage
        kept.chat.ask("hi")
        assert kept.chat.last.usage.cached_tokens > 0
    held = kv_snapshot.read(kept.session.state_path, demo._interior.identity.binding)
    assert held is not None
    assert held.prefill[0] == longest.prompt_tokens - longest.cached_tokens


def test_a_trimmed_chat_is_resumed_without_a_new_prefill(
    demo_gguf: Path, sessions: Sessions
) -> None:
    with edgesppo.load(demo_gguf, n_ctx=160) as model:
        with model.keep(sessions.open("ada"), temperature=0, max_tokens=20) as kept:
            while not kept.chat.left_out or kept.chat.last.usage.cached_tokens < 40:
                kept.chat.ask("What is 2 plus 3?")
                kept.record()
            left_out, held = kept.chat.left_out, kept.chat.last.usage
        with sessions.open("ada") as session:
            expected = model.keep(session).chat.ask(QUESTION)
    with edgesppo.load(demo_gguf, n_ctx=160) as model, sessions.open("ada") as session:
        kept = model.keep(session)
        assert kept.chat.left_out == left_out
        assert kept.chat.ask(QUESTION) == expected
        assert kept.chat.last.left_out == left_out
        assert kept.chat.last.usage.cached_tokens >= held.prompt_tokens
    with edgesppo.load(demo_gguf, n_ctx=512) as model, sessions.open("ada") as session:
        assert model.keep(session).chat.left_out == 0  # there is room for all again


def test_another_model_resumes_the_same_chat_and_is_told(
    demo: LoadedModel, demo_f32: Path, sessions: Sessions
) -> None:
    _talk(demo, sessions, "ada")
    with edgesppo.load(demo_f32) as other:
        with other.keep(sessions.open("ada")) as kept:
            why = "its KV cache is of another model"
            assert kept.resumed == persistent_chat.Resumed(2, 0, None, demo.name, why)
            assert "Ada" in kept.chat.ask(QUESTION)
        with sessions.open("ada") as session:
            assert other.keep(session).resumed.other_model is None  # type: ignore[union-attr]


def test_states_of_all_chats_are_capped_and_the_oldest_go_first(
    demo: LoadedModel, sessions: Sessions
) -> None:
    size = _talk(demo, sessions, "0").stat().st_size
    for name in "123":  # their headers differ by the digits of what was measured
        _talk(demo, sessions, name, snapshots=2 * size + 1000)
    _talk(demo, sessions, "none", snapshots=0)
    _talk(demo, sessions, "too small a cap", snapshots=size - 1000)
    kept = {entry.name for entry in sessions.entries() if entry.n_state_bytes}
    assert kept == {"2", "3"}
    assert len(sessions.entries()) == 6


def test_a_state_that_memory_has_no_room_for_is_not_written(
    demo: LoadedModel, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_state.hardware, "available_memory", lambda: 10_000)
    assert not _talk(demo, sessions, "ada").exists()


def test_a_model_that_was_closed_first_costs_the_state_only(
    demo_gguf: Path, sessions: Sessions
) -> None:
    model = edgesppo.load(demo_gguf)
    kept = model.keep(sessions.open("ada"), temperature=0)
    kept.chat.ask(TURNS[0])
    model.close()
    kept.close()
    kept.close()
    (entry,) = sessions.entries()
    assert (entry.n_turns, entry.n_state_bytes) == (1, 0)


def test_a_fault_at_any_operation_costs_no_turn_and_no_lock(
    demo: LoadedModel, tmp_path: Path
) -> None:
    folder = tmp_path / "sessions"
    chat = demo.chat(temperature=0)
    chat.ask(TURNS[0])
    number, counting = 0, Counting()
    while number <= len(counting.done):
        faulty = Faulty(number, errno.ENOSPC) if number else counting
        number += 1
        failed = False
        try:
            with Sessions(folder, faulty).open("ada") as session:
                kept = demo.keep(session)
                kept.chat.messages = list(chat.messages)
                kept.close()
        except edgesppo.OutputError:
            failed = True
        entries = Sessions(folder).entries()
        assert failed or [entry.n_turns for entry in entries] == [1]
        for entry in entries:
            Sessions(folder).delete(entry.name)
        assert list(folder.glob("*")) == []


def test_every_parameter_comes_back_and_is_not_written_again(
    demo: LoadedModel, sessions: Sessions
) -> None:
    sampling: dict[str, Any] = {
        "logit_bias": {50: -1},
        "stop": ["@"],
        "stop_tokens": [7],
        "seed": 1,
    }
    with demo.keep(sessions.open("ada"), **sampling) as kept:
        kept.chat.ask(TURNS[0])
        params, kept.chat.overflow = kept.chat.params, "error"
    before = sessions.path("ada").read_bytes()
    with sessions.open("ada") as session, demo.keep(session) as kept:
        assert session.notices == []
        assert (kept.chat.params, kept.chat.overflow) == (params, "error")
        kept.record()
    assert sessions.path("ada").read_bytes() == before


def test_how_an_answer_ended_comes_back(demo: LoadedModel, sessions: Sessions) -> None:
    with demo.keep(sessions.open("ada"), temperature=0) as kept:
        kept.chat.ask(TURNS[0])
        kept.chat.ask(TURNS[1], max_tokens=1)
        chunks = kept.chat.stream(TURNS[1])
        while not next(chunks).text:
            pass
        chunks.close()
    with sessions.open("ada") as session:
        messages = demo.keep(session).chat.messages
    ends = [message.finish_reason for message in messages]
    assert ends == [None, "stop", None, "length", None, "cancelled"]
