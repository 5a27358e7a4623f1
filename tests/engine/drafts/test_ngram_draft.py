"""Drafts from the text itself: when they pay, and that they change no answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgesppo
from edgesppo import SamplingParams, api
from edgesppo.engine import engine as engines
from edgesppo.engine.ngram_draft import Drafter, NgramIndex
from edgesppo.planning import run_config
from edgesppo.planning.run_config import DEFAULT_ROW_COSTS, MAX_DRAFT, ROWS
from tests.support.drafts import FREE, GREEDY, engine, run, texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgesppo.llama.model import Model


DEAR = tuple(float(rows) for rows in ROWS)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60))
def test_the_latest_place_that_ends_alike_is_found(tokens: list[int], cut: int) -> None:
    index = NgramIndex()
    index.extend(tokens[:cut])
    for token in tokens[cut:]:
        index.extend([token])
    ends = [n for n in range(3, len(tokens)) if tokens[n - 3 : n] == tokens[-3:]]
    place, length = index.find()
    assert place == (ends[-1] if ends else 0)
    if place:
        agreed = 0
        while agreed < min(32, place) and tokens[place - 1 - agreed] == tokens[-1 - agreed]:
            agreed += 1
        assert length == agreed


def test_what_was_right_is_guessed_longer_and_what_was_wrong_shorter() -> None:
    drafter = Drafter(list(range(50)) * 2, DEFAULT_ROW_COSTS)
    first = drafter.propose(MAX_DRAFT)
    assert first == list(range(len(first)))
    for _ in range(10):
        guess = drafter.propose(MAX_DRAFT)
        drafter.learn(guess, [*guess, (guess[-1] + 1) % 50])
    assert len(drafter.propose(MAX_DRAFT)) == MAX_DRAFT > len(first) > 0
    for _ in range(20):
        guess = drafter.propose(MAX_DRAFT)
        drafter.learn(guess, [1000])
        drafter.learn([], list(range(50)))
    assert drafter.propose(MAX_DRAFT) == []


def test_no_guess_is_made_where_rows_cost_as_much_as_steps() -> None:
    assert Drafter(list(range(50)) * 2, DEAR).propose(MAX_DRAFT) == []
    assert len(Drafter(list(range(50)) * 2, FREE).propose(MAX_DRAFT)) == MAX_DRAFT


def test_a_guess_keeps_to_its_limit_and_needs_a_run_of_three() -> None:
    assert Drafter(list(range(50)) * 2, FREE).propose(2) == [0, 1]
    assert Drafter([1, 2, 9, 1, 2], FREE).propose(5) == []
    assert Drafter([], FREE).propose(5) == []


def test_rows_of_other_sequences_count() -> None:
    """Among many sequences a draft must be likely, because it slows all of them."""
    costs = (1.0, 4.0, 8.0, 16.0)
    assert Drafter(list(range(50)) * 2, costs).propose(8, others=3) == []


@pytest.mark.parametrize(
    "params",
    [
        GREEDY,
        GREEDY.replace(temperature=0.8, top_p=0.95, seed=7),
        GREEDY.replace(temperature=1.0, top_k=40, repeat_penalty=1.1, seed=3),
    ],
    ids=["greedy", "sampled", "penalised"],
)
def test_guesses_change_no_answer(model: Model, params: SamplingParams) -> None:
    """In F32, where the rounding of larger batches is too small to decide a token."""
    drafted = 0
    for ids in texts(model):
        plain, quick = engine(model, drafts=False), engine(model, drafts=True)
        # No end token ends it, so that the answer is much longer than the sliding window.
        first = run(plain, ids, params)
        second = run(quick, ids, params)
        assert second.tokens == first.tokens
        assert second.finish_reason == first.finish_reason
        assert second.drafter is not None
        drafted += second.drafter.n_drafted
        # The cache is sound: the next turn equals that of a fresh chat.
        longer = [*first.tokens, *ids[1:]][: plain.n_ctx - 20]
        fresh = engine(model, drafts=False)
        assert run(quick, longer, GREEDY).tokens == run(fresh, longer, GREEDY).tokens
        for made in (plain, quick, fresh):
            made.close()
    assert drafted > 20


def test_a_model_of_a_few_megabytes_guesses_only_when_told_to(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "is_small", run_config.is_small)
    for drafts, guesses in ((True, False), (False, False), (demo_gguf, True)):
        with edgesppo.load(demo_gguf, drafts=drafts) as made:
            drafter = made._interior.engine.add(
                made._interior.engine.prepare([made._interior.engine.model.bos], GREEDY)
            ).drafter
            assert (drafter is not None) == guesses


@pytest.mark.parametrize(("n_ubatch", "guesses"), [(MAX_DRAFT, False), (MAX_DRAFT + 1, True)])
def test_guesses_are_made_where_their_rows_fit_one_micro_batch(
    model: Model, n_ubatch: int, guesses: bool
) -> None:
    made = engine(model, drafts=True, n_ubatch=n_ubatch, n_batch=64)
    assert made._context is not None
    assert made._context.params.n_outputs == 1 + (MAX_DRAFT if guesses else 0)
    assert (made.add(made.prepare(texts(model)[0], GREEDY)).drafter is not None) == guesses
    made.close()


def test_the_longest_answer_is_exactly_as_long_as_asked(model: Model) -> None:
    for n in (1, 2, 5):
        made = engine(model, drafts=True)
        request = run(made, texts(model)[2], GREEDY.replace(max_tokens=n))
        assert request.n_generated <= n
        made.close()


def test_the_context_is_never_overrun(model: Model) -> None:
    made = engine(model, drafts=True, n_ctx=128)
    ids = texts(model)[2][:100]
    request = run(made, ids, GREEDY.replace(max_tokens=1000, temperature=2.0, seed=1))
    assert len(request.tokens) <= 128
    made.close()


def test_guesses_while_another_sequence_is_cancelled(model: Model) -> None:
    made = engine(model, drafts=True, n_seqs=3)
    alone = engine(model, drafts=False)
    prompts = texts(model)
    expected = run(alone, prompts[2], GREEDY).tokens
    victims = [made.add(made.prepare(ids, GREEDY)) for ids in prompts[:2]]
    request = made.add(made.prepare(prompts[2], GREEDY))
    for n, _ in enumerate(made.stream(request)):
        if n in (3, 6):
            thread = threading.Thread(target=made.cancel, args=(victims.pop(),))
            thread.start()
            thread.join()
    assert request.tokens == expected
    made.close()
    alone.close()


class Forced(Drafter):
    """Drafts the tokens of a given answer, as many as are left."""

    def __init__(self, answer: Sequence[int]) -> None:
        super().__init__([])
        self._left = list(answer)

    def propose(self, n_max: int, others: int = 0) -> list[int]:
        assert others == 0
        return self._left[: min(n_max, MAX_DRAFT)]

    def learn(self, drafted: Sequence[int], accepted: Sequence[int]) -> None:
        super().learn(drafted, accepted)
        del self._left[: len(accepted)]


@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("n_tokens", [2, 3])
def test_a_stop_string_split_over_guessed_tokens_ends_the_answer_there(
    demo_f32: Path, monkeypatch: pytest.MonkeyPatch, first: int, n_tokens: int
) -> None:
    """The text, finish reason, counts and cached tokens are those of an answer without drafts."""
    question, after = "How do I convert a checkpoint?", "What is the capital of Italy?"
    options: dict[str, Any] = {"temperature": 0, "logprobs": 1}
    with edgesppo.load(demo_f32, n_threads=1, drafts=False) as model:
        chat = model.chat(**options)
        chat.ask(question)
        answer = chat.last.ids
        pieces = [model._interior.engine.model.piece(token).decode() for token in answer]
        # From inside its first token to the end of its last one; the answer goes on after it.
        stop = "".join(pieces[first : first + n_tokens])[1:]
        before = "".join(pieces[:first]) + pieces[first][0]
        chat.clear()
        chat.ask(question, stop=[stop])
        plain, history = chat.last, chat.messages
    drafter = Forced(answer)
    with edgesppo.load(demo_f32, n_threads=1) as model:
        chat = model.chat(**options)
        monkeypatch.setattr(engines, "Drafter", lambda *_: drafter)
        chunks = list(chat.stream(question, stop=[stop]))
        monkeypatch.undo()
        quick = chat.last
        assert drafter.n_accepted >= first + n_tokens, "guesses reached beyond the stop string"
        assert (quick.text, quick.finish_reason) == (plain.text, "stop")
        assert quick.text == before == "".join(chunk.text for chunk in chunks)
        assert quick.usage.prompt_tokens == plain.usage.prompt_tokens
        assert quick.usage.completion_tokens == plain.usage.completion_tokens == first + n_tokens
        assert [entry.id for entry in quick.logprobs] == list(answer[: first + n_tokens])
        assert chat.messages == history
        chat.ask(after)
        next_turn = chat.last
    assert next_turn.usage.cached_tokens >= plain.usage.prompt_tokens - 1
    with edgesppo.load(demo_f32, n_threads=1, drafts=False) as model:
        fresh = model.chat(**options)
        fresh.messages = list(history)
        fresh.ask(after)
        assert fresh.last.usage.cached_tokens == 0
        assert next_turn.ids == fresh.last.ids
        values = [entry.logprob for entry in fresh.last.logprobs]
        assert [e.logprob for e in next_turn.logprobs] == pytest.approx(values, abs=0.01)
