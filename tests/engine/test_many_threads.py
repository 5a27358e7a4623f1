"""Many threads share one model, and each gets the answers that it would get alone.

A second or two by default, a minute with EDGESPPO_LONG=1.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.chat.dialogue import dialogue
from edgesppo.engine.engine import Engine
from edgesppo.llama.context import Context
from tests.support import near_ties
from tests.support.resources import native_handles, open_files
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo import Chat, SamplingParams
    from edgesppo.llama.batch import Batch
    from edgesppo.loaded_model import LoadedModel

THREADS = 10
SECONDS = 60.0 if LONG else 1.6
QUESTIONS = [
    "Who are you?",
    "What is 2 plus 3?",
    "What is the capital of France?",
    "My name is Ada.",
    "Please remember this: " + "my name is Bob and I like tea. " * 9,
    "Hello",
]
HOT: dict[str, Any] = {"temperature": 2.0, "top_p": 1.0, "max_tokens": 30}


@dataclass
class Tally:
    """What the threads did and found; every thread appends its own."""

    compared: list[str] = field(default_factory=list)
    flips: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)


class Reference:
    """The answers to prompts alone, computed once each, in a separate engine without drafts."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model._interior.engine.model
        self._engine = Engine(model._interior.engine.model, n_threads=1, draft_costs=None)
        self._known: dict[tuple[tuple[int, ...], Any], list[int]] = {}
        self._lock = threading.Lock()

    def answer(self, prompt: list[int], params: SamplingParams) -> list[int]:
        key = (tuple(prompt), params)
        with self._lock:
            if key not in self._known:
                request = self._engine.add(self._engine.prepare(prompt, params))
                tokens = [e.token for e in self._engine.stream(request) if e.token is not None]
                end = [self._model.end_of_turn] if request.finish_reason == "stop" else []
                self._known[key] = tokens + end
            return self._known[key]

    def close(self) -> None:
        self._engine.close()


class Talker:
    """One thread: performs random actions and compares the answers with the reference."""

    def __init__(self, model: LoadedModel, reference: Reference, tally: Tally, seed: int) -> None:
        self._model, self._reference, self._tally = model, reference, tally
        self._rng = random.Random(seed)

    def run(self, until: float) -> None:
        acts: list[Callable[[], None]] = [
            self._ask,
            self._two_turns,
            self._regenerate,
            self._hot,
            self._leave,
            self._cancel,
            self._too_long,
        ]
        try:
            for n in itertools.count(self._rng.randrange(len(acts))):
                if time.monotonic() > until:
                    return
                act = acts[n % len(acts)]
                act()
                self._tally.done.append(act.__name__)
        except BaseException as error:
            self._tally.failures.append(error)

    def _chat(self, **sampling: Any) -> Chat:
        return self._model.chat(**{"temperature": 0, "max_tokens": 24, **sampling})

    def _question(self) -> str:
        return self._rng.choice(QUESTIONS)

    def _ask(self) -> None:
        chat = self._chat()
        chat.ask(self._question())
        self._compare(chat)

    def _two_turns(self) -> None:
        chat = self._chat()
        chat.ask(self._question())
        chat.ask(self._question())
        self._compare(chat)

    def _regenerate(self) -> None:
        chat = self._chat()
        chat.ask(self._question())
        for _ in chat.regenerate():
            pass
        self._compare(chat)

    def _hot(self) -> None:
        """A seed gives the same answer among others as alone; near ties are not counted."""
        chat = self._chat(**HOT, seed=self._rng.randrange(5))
        chat.ask(self._question())
        assert chat.last.usage.completion_tokens == len(chat.last.ids)

    def _leave(self) -> None:
        chat = self._chat(**HOT, seed=self._rng.randrange(5))
        stream: Any = chat.stream(self._question())
        for _ in range(self._rng.randrange(4)):
            next(stream, None)
        stream.close()

    def _cancel(self) -> None:
        """Cancel from another thread, at a random moment."""
        engine = self._model._interior.engine
        prompt = [2, *self._model.tokenize(self._question())]
        request = engine.add(engine.prepare(prompt, self._chat(**HOT).params))
        timer = threading.Timer(self._rng.random() / 50, engine.cancel, [request])
        timer.start()
        *_, last = engine.stream(request)
        timer.join()
        assert last.finish_reason in ("cancelled", "stop", "length")

    def _too_long(self) -> None:
        with pytest.raises(edgesppo.ContextOverflow):
            self._model.ask("much " * 2000)

    def _compare(self, chat: Chat) -> None:
        """Compare the latest greedy answer with the one that its prompt gives alone."""
        prompt, last = self._prompt(chat), chat.last
        end = (
            [self._model._interior.engine.model.end_of_turn] if last.finish_reason == "stop" else []
        )
        mine, alone = [*last.ids, *end], self._reference.answer(prompt, chat.params)
        what = f"{mine} alone {alone}, behind {len(prompt)} tokens"
        self._tally.compared.append(what)
        if mine != alone:
            tie = near_ties.is_near_tie(
                self._model._interior.engine.model, prompt, mine, alone, "q4_k_m"
            )
            (self._tally.flips if tie else self._tally.wrong).append(what)

    def _prompt(self, chat: Chat) -> list[int]:
        after, chat.messages = chat.messages, chat.messages[:-2]
        prompt = dialogue(chat).encode(after[-2:-1])
        chat.messages = after
        return prompt


@pytest.mark.parametrize("n_seqs", [1, 4])
def test_ten_threads_on_one_model(demo_gguf: Path, n_seqs: int) -> None:
    """With 4 sequences they sometimes need more cells than the context has, and some must wait."""
    held = native_handles(), open_files(), threading.active_count()
    with edgesppo.load(demo_gguf, n_seqs=n_seqs) as model:
        reference, tally = Reference(model), Tally()
        until = time.monotonic() + SECONDS / 2
        talkers = [Talker(model, reference, tally, seed) for seed in range(THREADS)]
        threads = [threading.Thread(target=talker.run, args=[until]) for talker in talkers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 60)
        assert not any(thread.is_alive() for thread in threads), "a thread hangs"
        _report(n_seqs, tally)
        assert (tally.failures, tally.wrong) == ([], [])
        assert len(tally.flips) <= len(tally.compared) / 10
        _check_idle(model, reference)
        reference.close()
    assert (native_handles(), open_files(), threading.active_count()) == held


def _report(n_seqs: int, tally: Tally) -> None:
    acts = {name: tally.done.count(name) for name in sorted(set(tally.done))}
    print(f"{n_seqs} sequences: {acts}; {len(tally.compared)} answers compared, ", end="")
    print(f"{len(tally.flips)} parted at a near tie")
    assert len(acts) == 7, "every act came"


def _check_idle(model: LoadedModel, reference: Reference) -> None:
    """No request runs or waits, no slot is busy, and the next answer is right."""
    engine = model._interior.engine
    engine.step()
    assert engine._schedule.requests() == []
    assert not any(slot.busy for slot in engine._cache._slots)
    tally = Tally()
    Talker(model, reference, tally, 0)._ask()
    assert (len(tally.compared), tally.wrong) == (1, [])


def test_a_stream_that_is_left_lets_another_threads_step_go_on(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, begun, left = Context.decode, threading.Event(), threading.Event()
    stopped: list[bool] = []

    def slow(context: Context, batch: Batch) -> None:
        decode(context, batch)
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            left.wait(60)
            stopped.append(context.abort.is_set)

    with edgesppo.load(demo_gguf, n_seqs=2) as model:
        one, other = (model.chat(max_tokens=5, stop="nowhere").stream(text) for text in "ab")
        next(one)
        monkeypatch.setattr(Context, "decode", slow)
        thread = threading.Thread(target=lambda: list(other))
        thread.start()
        assert begun.wait(60)
        one.close()
        left.set()
        thread.join()
        assert stopped
        assert not any(stopped)
        assert model._interior.engine._schedule.requests() == []
