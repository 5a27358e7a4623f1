"""A chat far beyond the sliding window, edited in the middle, against a fresh context."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo import Message
from edgesppo.engine import Engine
from tests import near_ties

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo import Chat
    from edgesppo.loaded import LoadedModel

TURNS = 26
ASKED = [
    "My name is Ada.",
    "What is the capital of France?",
    "What is 4 plus 3?",
    "What is my name?",
    "Tell me how to convert a checkpoint, please, and what I need for it.",
    "Who are you?",
]


@pytest.fixture(scope="module", params=["q4_k_m", "f32"])
def model(request: pytest.FixtureRequest) -> Iterator[tuple[LoadedModel, str]]:
    kind: str = request.param
    fixture = {"q4_k_m": "demo_gguf", "f32": "demo_f32"}[kind]
    path: Path = request.getfixturevalue(fixture)
    with edgesppo.load(path, cache_type="f32" if kind == "f32" else "f16") as loaded:
        yield loaded, kind


def _ask(chat: Chat, rng: random.Random) -> list[int]:
    """The next turn; returns the prompt that it made."""
    text = rng.choice(ASKED)
    before = list(chat.messages)
    chat.ask(text)
    return _prompt(chat, before, text)


def _undo(chat: Chat, rng: random.Random) -> list[int]:
    """Another question in the place of the last."""
    chat.undo()
    return _ask(chat, rng)


def _undo_far(chat: Chat, rng: random.Random) -> list[int]:
    """Back by more than the window holds."""
    for _ in range(min(5, len(chat.messages) // 2)):
        chat.undo()
    return _ask(chat, rng)


def _change(chat: Chat, rng: random.Random) -> list[int]:
    """A question in the middle is worded otherwise; its answer stays."""
    place = rng.randrange(len(chat.messages) // 4, len(chat.messages) // 2) * 2
    chat.messages[place] = replace(chat.messages[place], content=f"{rng.choice(ASKED)} Please.")
    return _ask(chat, rng)


def _regenerate(chat: Chat, _rng: random.Random) -> list[int]:
    *before, asked, _ = chat.messages
    for _chunk in chat.regenerate():
        pass
    return _prompt(chat, before, asked.content)


def _prompt(chat: Chat, before: list[Message], text: str) -> list[int]:
    after, chat.messages = chat.messages, before
    ids = chat.encode([Message("user", text)], left_out=chat.last.left_out)
    chat.messages = after
    return ids


def _plan(rng: random.Random) -> list[Callable[[Chat, random.Random], list[int]]]:
    """Mostly plain turns, so that the chat grows, and each kind of edit more than once."""
    edits = [_undo, _change, _regenerate, _undo_far] * 2
    steps: list[Callable[[Chat, random.Random], list[int]]] = [_ask] * (TURNS - len(edits))
    for edit in edits:
        steps.insert(rng.randrange(4, len(steps) + 1), edit)
    return steps


def test_a_long_edited_chat_goes_as_in_a_fresh_context(model: tuple[LoadedModel, str]) -> None:
    """Token for token, but where the two best tokens lie within the rounding (see near_ties)."""
    loaded, kind = model
    rng = random.Random(11)
    chat = loaded.chat(temperature=0, max_tokens=24, system="Be brief.")
    longest = cached = flips = 0
    for step in _plan(rng):
        prompt = step(chat, rng)
        assert len(prompt) == chat.last.usage.prompt_tokens
        longest, cached = max(longest, len(prompt)), cached + chat.last.usage.cached_tokens
        kept, fresh = _answers(loaded, chat, prompt)
        if kept != fresh:
            tie = near_ties.is_near_tie(loaded.model, prompt, kept, fresh, kind)
            assert tie, f"{step.__name__} at {len(prompt)} tokens: {kept}, alone {fresh}"
            flips += 1
    print(f"{kind}: {flips} of {TURNS} answers parted at a near tie, {cached} tokens reused")
    assert longest > 5 * loaded.model.weights.n_swa
    assert chat.last.left_out > 0, "it outgrew the context, too"
    assert cached > 20 * loaded.model.weights.n_swa
    assert flips <= (TURNS // 4 if kind == "q4_k_m" else 0)


def _answers(loaded: LoadedModel, chat: Chat, prompt: list[int]) -> tuple[list[int], list[int]]:
    """What the chat got, and what a new context gives for the same prompt; with their ends."""
    engine = Engine(loaded.model, cache_type=loaded.engine.settings.split()[0], draft_costs=None)
    request = engine.submit(prompt, chat.params)
    tokens = [event.token for event in engine.stream(request) if event.token is not None]
    engine.close()
    ends = {"stop": [loaded.model.end_of_turn], "length": []}
    kept = [*chat.last.ids, *ends[chat.last.finish_reason]]
    return kept, [*tokens, *ends[request.finish_reason or ""]]


def test_the_margins_for_near_ties_hold_the_rounding(model: tuple[LoadedModel, str]) -> None:
    """Else a flip that only rounding made would count as an error, or the other way about."""
    loaded, kind = model
    cache = "f32" if kind == "f32" else "f16"
    text = "My name is Ada. What is 2 plus 3? Who are you? " * 20
    worst = 0.0
    for n in (20, 100, 300, 480):
        ids = [loaded.model.bos, *loaded.tokenize(text)][:n]
        whole = near_ties.logits(loaded.model, ids, cache=cache)
        for slices in (1, 7, 64):
            other = near_ties.logits(loaded.model, ids, slices, cache)
            worst = max(worst, *(abs(a - b) for a, b in zip(whole, other, strict=True)))
    print(f"{kind}: logits differ by up to {worst:.5f} in batches of other sizes")
    assert 0 < 2 * worst <= near_ties.MARGIN[kind] <= 10 * worst + 1e-3
