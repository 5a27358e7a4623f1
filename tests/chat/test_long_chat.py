"""A chat much longer than the sliding window, edited in the middle, against a fresh context."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo import Chat, Message, SamplingParams
from edgesppo.chat.dialogue import dialogue
from edgesppo.engine.engine import Engine
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from tests.support import near_ties
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.llama.sampler_chain import SamplerChain

TURNS = 26
ASKED = [
    "My name is Ada.",
    "What is the capital of France?",
    "What is 4 plus 3?",
    "What is my name?",
    "Tell me how to convert a checkpoint, please, and what I need for it.",
    "Who are you?",
]


# With small micro-batches llama.cpp keeps 256 cells for the sliding-window layers.
N_UBATCH = 32


@dataclass
class Setting:
    """A model, and the settings it is run with."""

    model: Model
    kind: str

    @property
    def cache_type(self) -> str:
        return "f32" if self.kind == "f32" else "f16"

    def engine(self, **options: Any) -> Engine:
        return Engine(self.model, cache_type=self.cache_type, n_ubatch=N_UBATCH, **options)


@pytest.fixture(scope="module", params=["q4_k_m", "f32"] if LONG else ["f32"])
def tested(request: pytest.FixtureRequest) -> Iterator[Setting]:
    kind: str = request.param
    model = Model(request.getfixturevalue({"q4_k_m": "demo_gguf", "f32": "demo_f32"}[kind]))
    yield Setting(model, kind)
    model.close()


def _ask(chat: Chat, rng: random.Random) -> list[int]:
    """Ask the next question; returns its prompt."""
    text = rng.choice(ASKED)
    before = list(chat.messages)
    chat.ask(text)
    return _prompt(chat, before, text)


def _undo(chat: Chat, rng: random.Random) -> list[int]:
    """Ask another question in place of the last one."""
    chat.undo()
    return _ask(chat, rng)


def _undo_far(chat: Chat, rng: random.Random) -> list[int]:
    """Undo more turns than the window holds."""
    for _ in range(min(5, len(chat.messages) // 2)):
        chat.undo()
    return _ask(chat, rng)


def _change(chat: Chat, rng: random.Random) -> list[int]:
    """Reword a question in the middle and keep its answer."""
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
    ids = dialogue(chat).encode([Message("user", text)], left_out=chat.last.left_out)
    chat.messages = after
    return ids


def _plan(rng: random.Random) -> list[Callable[[Chat, random.Random], list[int]]]:
    """Mostly plain turns, so that the chat grows, and each kind of edit more than once."""
    edits = [_undo, _change, _regenerate, _undo_far] * 2
    steps: list[Callable[[Chat, random.Random], list[int]]] = [_ask] * (TURNS - len(edits))
    for edit in edits:
        steps.insert(rng.randrange(4, len(steps) + 1), edit)
    return steps


def test_a_long_edited_chat_goes_as_in_a_fresh_context(
    tested: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token, except where rounding decides between the two best (see near_ties).

    The logits of each answer's first token also equal those of a fresh context: if cells of the
    window are missing, they differ long before another token becomes the best.
    """
    sample, seen = Context.sample, []

    def sample_and_note(context: Context, chain: SamplerChain, row: int) -> int:
        if not seen:
            seen.append(context.logits(row))
        return sample(context, chain, row)

    monkeypatch.setattr(Context, "sample", sample_and_note)
    rng, engine, window = random.Random(11), tested.engine(), tested.model.weights.n_swa
    params = SamplingParams(temperature=0, max_tokens=24)
    chat = Chat(engine, params, system="Be brief.")
    longest = cached = flips = lost = left_out = 0
    worst = 0.0
    for step in _plan(rng):
        seen.clear()
        prompt = step(chat, rng)
        fresh_logits = near_ties.logits(tested.model, prompt, cache=tested.cache_type)
        apart = max(abs(a - b) for a, b in zip(seen[0], fresh_logits, strict=True))
        assert apart < near_ties.MARGIN[tested.kind] / 2, f"{step.__name__} at {len(prompt)}"
        worst = max(worst, apart)
        assert len(prompt) == chat.last.usage.prompt_tokens
        longest, cached = max(longest, len(prompt)), cached + chat.last.usage.cached_tokens
        left_out = max(left_out, chat.last.left_out)
        lost += first_position(engine) > window
        kept, fresh = _answers(tested, chat, prompt)
        if kept != fresh:
            tie = near_ties.is_near_tie(tested.model, prompt, kept, fresh, tested.kind)
            assert tie, f"{step.__name__} at {len(prompt)} tokens: {kept}, alone {fresh}"
            flips += 1
    engine.close()
    print(f"{tested.kind}: {flips} of {TURNS} answers parted at a near tie, {cached} tokens reused")
    print(f"{tested.kind}: first logits {worst:.5f} apart at most")
    assert longest > 5 * window
    assert lost > 3, "cells of the window were overwritten, again and again"
    assert left_out > 0, "it outgrew the context, too"
    assert cached > 20 * window
    assert flips <= (TURNS // 4 if tested.kind == "q4_k_m" else 0)


def first_position(engine: Engine) -> int:
    """The first position that the sliding-window layers still hold."""
    assert engine._context is not None
    return engine._context.first_position(0)


def _answers(tested: Setting, chat: Chat, prompt: list[int]) -> tuple[list[int], list[int]]:
    """The chat's answer and that of a new context for the same prompt, with their end tokens."""
    engine = tested.engine(draft_costs=None)
    request = engine.add(engine.prepare(prompt, chat.params))
    tokens = [event.token for event in engine.stream(request) if event.token is not None]
    engine.close()
    ends = {"stop": [tested.model.end_of_turn], "length": []}
    kept = [*chat.last.ids, *ends[chat.last.finish_reason]]
    return kept, [*tokens, *ends[request.finish_reason or ""]]


def test_the_margins_for_near_ties_hold_the_rounding(tested: Setting) -> None:
    """Otherwise a flip caused by rounding would count as an error, or an error as rounding."""
    text = "My name is Ada. What is 2 plus 3? Who are you? " * 20
    worst = 0.0
    for n in (20, 100, 300, 480) if LONG else (20, 300):
        ids = [tested.model.bos, *tested.model.tokenize(text)][:n]
        whole = near_ties.logits(tested.model, ids, cache=tested.cache_type)
        for slices in (1, 7, 64):
            other = near_ties.logits(tested.model, ids, slices, tested.cache_type)
            worst = max(worst, *(abs(a - b) for a, b in zip(whole, other, strict=True)))
    print(f"{tested.kind}: logits differ by up to {worst:.5f} in batches of other sizes")
    assert 0 < 2 * worst <= near_ties.MARGIN[tested.kind] <= 10 * worst + 5e-3
