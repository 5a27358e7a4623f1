"""A chat's prompt from cached ids equals the one tokenised from scratch, whatever was edited."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import Chat, Message, SamplingParams
from edgesppo.chat import template
from edgesppo.chat.history import History
from edgesppo.engine.engine import Engine
from edgesppo.llama.library import C
from edgesppo.llama.model import Model
from edgesppo.system import validate
from edgesppo_convert import convert
from tests.support.checkpoints import Shape, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.loaded_model import LoadedModel

TEXTS = [
    "Hi",
    " Who are you?\n",
    "",
    "What is 2 plus 3? " * 9,
    "<end_of_turn>",
    "é🙂",
    "\n\nx",
    "x",
]
SYSTEMS = [None, "", "  ", "Be brief.", "Be brief. " * 20, "\n Speak\n\nFrench. \n"]
STEPS = 400
TURNS = 50


@pytest.fixture(scope="module")
def long_context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A small model with random weights, whose context holds many turns."""
    folder = tmp_path_factory.mktemp("long")
    source = write_checkpoint(folder / "files", Shape(1, 64, 64, 2, 1, 32, 600, 4096, 4096))
    model = Model(convert(source, folder / "long.gguf").output)
    yield model
    model.close()


def _message(rng: random.Random, role: str, model: Model) -> Message:
    text = rng.choice(TEXTS)
    own = rng.random() < (0.5 if role == "assistant" else 0.1)
    return Message(role, text, tuple(model.tokenize(text)) if own else None)


def _turn(rng: random.Random, model: Model) -> list[Message]:
    return [_message(rng, role, model) for role in ("user", "assistant")]


def _edit(history: History, rng: random.Random, model: Model) -> None:
    """Do a random thing that a user may do to a chat."""
    messages = history.messages
    place = rng.randrange(len(messages) // 2) if messages else 0
    act = rng.randrange(8)
    if act <= 2 or not messages:
        messages += _turn(rng, model)
    elif act == 3:
        messages[2 * place : 2 * place] = _turn(rng, model)
    elif act == 4:
        del messages[2 * place : 2 * place + 2]
    elif act == 5:
        history.messages = [*messages[2 * place :], *messages[: 2 * place]]
    elif act == 6:
        messages[2 * place + 1] = replace(messages[2 * place + 1], ids=None)
    else:
        history.system = rng.choice(SYSTEMS)


def _anew(history: History, messages: list[Message], model: Model) -> list[int]:
    head = [Message("system", history.system)] if history.system else []
    return template.encode(model, [*head, *messages])


@pytest.mark.parametrize("seed", range(4))
def test_an_edited_history_has_the_ids_that_it_has_when_tokenised_anew(
    demo: LoadedModel, seed: int
) -> None:
    rng, model = random.Random(seed), demo._interior.engine.model
    history = History(model)
    for _ in range(STEPS):
        _edit(history, rng, model)
        left_out = rng.randrange(len(history.messages) // 2 + 1)
        asked = _message(rng, "user", model)
        expected = _anew(history, [*history.messages[2 * left_out :], asked], model)
        assert history.encode([asked], left_out=left_out) == expected
        history.left_out = min(left_out, 3)
        after = 2 * rng.randrange(len(history.messages) // 2 + 1)
        ids, left_out = history.fit(asked, after, room := rng.randrange(20, 600))
        assert ids == _anew(history, [*history.messages[2 * left_out : after], asked], model)
        assert len(ids) <= room or 2 * left_out == after
        if rng.random() < 0.3:  # the turn was answered
            history.messages[after:] = [asked, _message(rng, "assistant", model)]


def _counted(
    history: History, after: int, asked: Message, room: int, model: Model, *, grown: bool
) -> int:
    """The expected number of turns left out, by tokenising every turn; without a system text."""

    def too_many(room: int) -> int:
        taken = len(template.encode(model, [asked]))
        for n in range(after // 2, 0, -1):
            turn = history.messages[2 * n - 2 : 2 * n]
            taken += sum(len(template.message_ids(model, message, "")) for message in turn)
            if taken > room:
                return n
        return 0

    left_out = min(history.left_out, after // 2)
    if left_out and not grown and (not too_many(room) or too_many(room // 4) <= left_out):
        left_out = 0  # removed turns have made room
    return max(left_out, too_many(room // 2)) if too_many(room) > left_out else left_out


def test_as_many_turns_go_as_when_every_turn_is_counted_anew(demo: LoadedModel) -> None:
    rng, model, seen = random.Random(5), demo._interior.engine.model, set[int]()
    history, before = History(model), Message("user", "Hi")
    for _ in range(STEPS):
        turn = _turn(rng, model)
        grown = rng.random() < 0.7  # the question of the latest prompt was answered
        history.messages += [before, turn[1]] if grown else turn
        asked, room = _message(rng, "user", model), rng.randrange(30, 500)
        after = len(history.messages) - 2 * rng.randrange(2)
        grown = after >= 2 and history.messages[after - 2] is before
        expected = _counted(history, after, asked, room, model, grown=grown)
        assert history.fit(asked, after, room)[1] == expected
        history.note(asked, expected)
        before = asked
        seen.add(expected)
        if rng.random() < 0.1:
            history.messages, history.left_out = history.messages[-12:], rng.randrange(3)
    assert len(seen) > 20


def test_turns_that_were_left_out_come_back_when_others_are_removed(demo: LoadedModel) -> None:
    """By undo, by another question in the place of the long one, and in the list of messages."""
    long = "What is 2 plus 3? " * 54

    def told() -> Chat:
        chat = demo.chat(temperature=0, max_tokens=12)
        for text in ("My name is Ada.", "Who are you?", long):
            chat.ask(text)
        assert chat.left_out == 2
        return chat

    chat = told()
    chat.undo()
    assert "Ada" in chat.ask("What is my name?")
    assert chat.left_out == 0
    chat = told()
    *_, end = chat.regenerate("What is my name?")
    assert end.finish_reason == "stop"
    assert "Ada" in chat.messages[-1].content
    chat = told()
    chat.messages = chat.messages[:2]
    assert "Ada" in chat.ask("What is my name?")
    with pytest.raises(AttributeError):
        chat.left_out = -3  # type: ignore[misc]
    with pytest.raises(edgesppo.UsageError, match="params has the type dict"):
        chat.params = {"temperature": 0}  # type: ignore[assignment]


def test_a_chat_that_only_grows_keeps_its_prefix_whatever_room_its_answers_take(
    demo: LoadedModel,
) -> None:
    chat = demo.chat(temperature=0)
    left_out = []
    for n in range(24):
        chat.ask(f"What is {n % 7} plus 3?", max_tokens=(128, 1)[n % 2])
        left_out.append(chat.left_out)
    assert left_out[-1] > 0
    assert left_out == sorted(left_out)


def test_a_turn_that_the_system_text_makes_too_long_goes_too(demo: LoadedModel) -> None:
    """The system text's length is estimated from the turn that it was joined to before."""
    model, answer = demo._interior.engine.model, Message("assistant", "x")
    old = Message("user", "x", tuple(model.tokenize("What is 2 plus 3? " * 8)))
    messages = [old, answer, Message("user", "Hi"), answer]
    asked = Message("user", "Hi")
    history = History(model, messages, system="Be brief. " * 30)
    room = 2 * len(template.encode(model, [*messages[2:], asked]))
    assert len(template.encode(model, [*messages, asked])) > room
    ids, left_out = history.fit(asked, len(messages), room)
    assert left_out == 2
    assert ids == _anew(history, [asked], model)


def _calls_of_each_turn(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, n: int = TURNS
) -> tuple[list[int], list[int]]:
    """The calls of the tokenizer and of the check of a text, in each of the turns."""
    real, check, calls, checked = C.llama_tokenize, validate.text, list[int](), list[int]()
    seen: list[int] = [0, 0]

    def tokenize(*arguments: Any) -> int:
        seen[0] += 1
        return int(real(*arguments))

    def checks_text(what: str, value: Any) -> None:
        seen[1] += 1
        check(what, value)

    monkeypatch.setattr(C, "llama_tokenize", tokenize)
    monkeypatch.setattr(validate, "text", checks_text)
    for turn in range(n):
        seen[:] = 0, 0
        chat.ask(f"What is {turn % 7} plus 3?")
        calls.append(seen[0])
        checked.append(seen[1])
    monkeypatch.undo()
    return calls, checked


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_turn_tokenises_its_new_message_alone(
    long_context: Model, monkeypatch: pytest.MonkeyPatch, system: str | None
) -> None:
    engine = Engine(long_context)
    bans = dict.fromkeys(range(108), -100.0)  # a control token would end the answer
    params = SamplingParams(temperature=0, max_tokens=8, logit_bias=bans)
    chat = Chat(engine, params, system=system)
    calls, checked = _calls_of_each_turn(chat, monkeypatch)
    engine.close()
    assert all(message.ids for message in chat.messages[1::2])
    assert chat.last.left_out == 0
    assert chat.last.usage.prompt_tokens > 1000
    assert calls == [1] * TURNS
    assert checked[1] == checked[-1] == 2, "the new question, and the answer before it"


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_turn_tokenises_its_new_message_alone_in_a_chat_that_is_trimmed(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch, system: str | None
) -> None:
    """Except when turns are left out: the system text is then tokenised with another turn."""
    chat = demo.chat(temperature=0, max_tokens=8, system=system)
    left_out: list[int] = []
    calls: list[int] = []
    for _ in range(TURNS):
        calls += _calls_of_each_turn(chat, monkeypatch, 1)[0]
        left_out.append(chat.last.left_out)
    assert len(set(left_out)) > 2, "it was trimmed more than once"
    moved = [n for n in range(1, TURNS) if left_out[n] != left_out[n - 1]]
    assert all(calls[n] == 1 for n in range(TURNS) if n not in moved)
    assert all(calls[n] <= (1 if system is None else 4) for n in moved)


def test_a_message_that_is_put_into_a_chat_is_checked_then(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, max_tokens=4)
    chat.ask("Hi")
    chat.ask("Who are you?")
    good = list(chat.messages)
    chat.messages[2] = Message("user", None)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(edgesppo.UsageError, match="the content of message 3 has the type"):
            chat.ask("Hi")
    chat.messages[2] = Message("user", "a\ud800")
    with pytest.raises(edgesppo.UsageError, match="the content of message 3 has a lone surrogate"):
        chat.ask("Hi")
    chat.messages[2] = good[1]
    with pytest.raises(edgesppo.UsageError, match="message 3 has the role 'assistant'"):
        chat.ask("Hi")
    chat.messages = good
    chat.system = "Be brief."
    chat.messages[0] = Message("user", 5)  # type: ignore[arg-type]
    with pytest.raises(edgesppo.UsageError, match="the content of message 2 has the type int"):
        chat.ask("Hi")
    with pytest.raises(edgesppo.UsageError, match="system has the type int, expected str"):
        chat.system = 5  # type: ignore[assignment]
    assert chat.system == "Be brief."


def test_a_message_that_left_its_chat_is_not_held(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, max_tokens=2, system="Be brief.")
    for _ in range(3):
        chat.ask("Hi")
    gone = [weakref.ref(message) for message in chat.messages]
    chat.clear()
    chat.ask("Who are you?")
    gc.collect()
    assert [message() for message in gone] == [None] * 6
