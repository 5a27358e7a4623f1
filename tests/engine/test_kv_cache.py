"""Which sequence of the KV cache a prompt takes, and what others lose by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import edgesppo
from edgesppo.errors import Cancelled
from edgesppo.llama.context import Context
from edgesppo.sampling.params import SamplingParams

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from edgesppo.llama.batch import Batch


def test_conversations_that_take_turns_each_keep_their_cells(demo_gguf: Path) -> None:
    """All chats begin with the same few tokens; there are sequences enough for all of them."""
    with edgesppo.load(demo_gguf, n_seqs=2) as model:
        chats = [model.chat(max_tokens=4, temperature=0) for _ in range(2)]
        cached, prompts = [], []
        for _ in range(2):
            for chat, name in zip(chats, ("Ada", "Bob"), strict=True):
                chat.ask(f"{name} {'lives in Rome and likes to read. ' * 4}")
                assert chat.last is not None
                cached.append(chat.last.usage.cached_tokens)
                prompts.append(chat.last.usage.prompt_tokens)
        assert cached[0] == 0
        assert cached[1] < 10
        assert cached[2] >= prompts[0]
        assert cached[3] >= prompts[1]


def test_where_room_is_short_the_conversation_used_least_recently_goes(demo_gguf: Path) -> None:
    with edgesppo.load(demo_gguf, n_seqs=3) as model:
        engine = model._interior.engine
        prompts = [
            model.tokenize(f"{name} {'lives in Rome and likes to read. ' * 18}", chat=True)
            for name in ("Ada", "Bob", "Cleo")
        ]
        assert 2 * len(prompts[0]) < engine.n_ctx < 3 * len(prompts[0])
        for prompt in prompts:
            list(engine.stream(engine.add(engine.prepare(prompt, SamplingParams(max_tokens=1)))))
        cached = [engine.count_cached([*prompt, prompt[-1]]) for prompt in prompts]
        assert cached[0] < 10, "what all chats begin with"
        assert cached[1:] == [len(prompt) for prompt in prompts[1:]]


def test_chats_with_a_long_system_text_each_keep_their_cells(demo_gguf: Path) -> None:
    """More than half of each is what all have; it is shared, and nobody's turn is lost."""
    with edgesppo.load(demo_gguf, n_seqs=3) as model:
        system = "You like Rome and read much. " * 8
        names = ("Ada", "Bob", "Cleo")
        chats = [model.chat(system=system, max_tokens=4, temperature=0) for _ in names]
        prompts, cached = [], []
        for question in ("My name is", "Say hello to"):
            for chat, name in zip(chats, names, strict=True):
                chat.ask(f"{question} {name}, who lives in Rome and likes to read.")
                prompts.append(chat.last.usage.prompt_tokens)
                cached.append(chat.last.usage.cached_tokens)
        assert all(n > prompts[0] // 2 for n in cached[1:3]), "the system text is shared"
        assert all(new >= old for new, old in zip(cached[3:], prompts[:3], strict=True))


def test_what_is_restored_last_finds_room(demo_gguf: Path) -> None:
    """Sequences share cells in the cache, and have copies of them when they are saved."""
    text = "You like Rome and read much. " * 36
    with edgesppo.load(demo_gguf, n_seqs=3) as model:
        engine = model._interior.engine
        for name in ("Ada", "Bob", "Cleo"):
            prompt = model.tokenize(f"{text} I am {name}.", chat=True)
            list(engine.stream(engine.add(engine.prepare(prompt, SamplingParams(max_tokens=1)))))
        assert 3 * len(prompt) > engine.n_ctx
        saved = [(ids, bytearray(cells)) for _, ids, cells in engine.states(1, 1 << 30)]
    assert len(saved) == 3
    with edgesppo.load(demo_gguf, n_seqs=3) as model:
        engine = model._interior.engine
        for ids, cells in reversed(saved):
            assert engine.restore(ids, cells)
        assert engine.count_cached([*prompt, 1]) == len(prompt)


def test_what_a_cancelled_prompt_computed_makes_room(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Context.decode

    def stopped(context: Context, batch: Batch) -> None:
        decode(context, batch)
        raise Cancelled("stopped behind its last micro-batch")

    with edgesppo.load(demo_gguf, n_ctx=512, n_seqs=2) as model:
        engine = model._interior.engine
        with monkeypatch.context() as patch:
            patch.setattr(Context, "decode", stopped)
            left = engine.add(engine.prepare([2, *range(300, 740)], SamplingParams(max_tokens=1)))
            engine.step()
            engine.cancel(left)
        other = engine.add(engine.prepare([2, *range(1000, 1400)], SamplingParams(max_tokens=1)))
        assert [event.finish_reason for event in engine.stream(other)][-1] == "length"
