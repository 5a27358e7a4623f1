"""Drafts of a second model: they change no answer, hold nobody up, and can be stopped."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import api
from edgesppo.engine.draft_model import DraftModel, open_draft_model
from edgesppo.engine.engine import Engine
from edgesppo.engine.ngram_draft import Drafter
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from edgesppo.planning.run_config import DEFAULT_ROW_COSTS, DRAFT_SLICE, MAX_DRAFT
from edgesppo_convert import convert
from tests.support.checkpoints import SMALL, write_checkpoint
from tests.support.drafts import FREE, GREEDY, engine, run, texts
from tests.support.resources import open_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgesppo.llama.batch import Batch


@pytest.fixture
def small(demo_gguf: Path) -> Iterator[Model]:
    """The demo in fewer bits, which predicts the demo's answers well."""
    model = Model(demo_gguf)
    yield model
    model.close()


def test_a_second_models_guesses_change_no_answer(model: Model, small: Model) -> None:
    guesser = DraftModel(small, model, n_ctx=512, n_threads=1)
    plain = engine(model, drafts=False)
    made = Engine(model, n_threads=1, draft_costs=FREE, draft_model=guesser)
    guesser.cost = 0.0
    accepted = 0
    for ids in texts(model):
        for params in (GREEDY, GREEDY.replace(temperature=0.7, seed=5)):
            first, second = run(plain, ids, params), run(made, ids, params)
            assert second.tokens == first.tokens
            assert second.drafter is not None
            accepted += second.drafter.n_accepted
    assert accepted > 30
    plain.close()
    made.close()


def test_a_guesser_that_costs_too_much_is_not_asked() -> None:
    class Dear:
        cost = 1.0

        def propose(self, tokens: object, n: int) -> list[int]:
            pytest.fail(f"asked for {n} behind {tokens}")

    assert Drafter([1, 2, 3], DEFAULT_ROW_COSTS, Dear()).propose(8) == []


def guessed(guesser: DraftModel, ids: list[int], n: int) -> list[int]:
    """A draft of `n` tokens, asked for until the draft model has caught up with the text."""
    found = [guesser.propose(ids, n) for _ in range(-(-len(ids) // DRAFT_SLICE))]
    assert not any(found[:-1]), "nothing is guessed before all was read"
    return found[-1]


def test_a_guess_can_be_stopped_and_made_again(model: Model, small: Model) -> None:
    guesser = DraftModel(small, model, n_ctx=512, n_threads=1)
    ids = texts(model)[1]
    assert DRAFT_SLICE < len(ids) < 2 * DRAFT_SLICE
    expected = guessed(guesser, ids, 6)
    assert len(expected) == 6
    assert guesser.propose(ids[: len(ids) // 2], 3) != []
    guesser.stop()
    assert guesser.propose(ids, 6) == []
    guesser.resume()
    assert guesser.propose(ids, 6) == expected, "what it had read stayed"
    assert guesser.propose(ids * 10, 6) == []
    guesser.close()


@pytest.fixture
def guessing(model: Model, small: Model) -> Iterator[tuple[Engine, DraftModel]]:
    """An engine for two sequences, and its draft model, which is said to cost nothing."""
    guesser = DraftModel(small, model, n_ctx=512, n_threads=1)
    guesser.cost = 0.0
    made = Engine(model, n_threads=1, n_seqs=2, draft_costs=FREE, draft_model=guesser)
    yield made, guesser
    made.close()


def test_a_draft_model_reads_a_long_text_slice_by_slice(
    model: Model, guessing: tuple[Engine, DraftModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step decodes at most a slice and a draft for it, so that other sequences do not stall."""
    made, guesser = guessing
    decode, drafted, steps = Context.decode, [0], list[int]()

    def counted(context: Context, batch: Batch) -> None:
        decode(context, batch)
        if context is guesser._context:
            drafted[0] += len(batch)

    monkeypatch.setattr(Context, "decode", counted)
    endless = GREEDY.replace(max_tokens=30, logit_bias={1: -100, model.end_of_turn: -100})
    request = made.add(made.prepare([model.bos, *range(300, 680)], endless))
    while request.finish_reason is None:
        before = drafted[0]
        made.step()
        steps.append(drafted[0] - before)
    assert max(steps) <= DRAFT_SLICE + MAX_DRAFT
    assert steps.count(DRAFT_SLICE) >= 5
    assert request.drafter is not None
    assert request.drafter.n_drafted > 0


def test_a_cancel_ends_the_draft_models_reading(
    model: Model, guessing: tuple[Engine, DraftModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a cancel that arrives right before the reading begins."""
    made, guesser = guessing
    guess, decode, threads, done = guesser.propose, Context.decode, [], list[int]()
    prompt = texts(model)[0]
    victim = made.add(made.prepare(prompt, GREEDY))

    def counted(context: Context, batch: Batch) -> None:
        decode(context, batch)
        done.append(len(batch))

    def cancelled_before(tokens: Sequence[int], n: int) -> list[int]:
        stopped, stop = threading.Event(), guesser.stop
        monkeypatch.setattr(guesser, "stop", lambda: (stop(), stopped.set()))
        threads.append(threading.Thread(target=made.cancel, args=(victim,)))
        threads[0].start()
        assert stopped.wait(60)
        monkeypatch.setattr(guesser, "propose", guess)
        monkeypatch.setattr(Context, "decode", counted)
        return guess(tokens, n)

    monkeypatch.setattr(guesser, "propose", cancelled_before)
    n_steps = 0
    while not threads:
        made.step()
        n_steps += 1
        assert n_steps < 100
    threads[0].join(10)
    assert done == [], "neither the draft model nor the model itself computed any more"
    assert victim.finish_reason == "cancelled"
    again = run(made, prompt, GREEDY)
    assert again.drafter is not None
    assert again.drafter.n_accepted > 0
    alone = engine(model, drafts=False)
    assert again.tokens == run(alone, prompt, GREEDY).tokens
    alone.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let mapped files change")
def test_a_draft_models_file_that_changes_is_one_clear_error(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "open_draft_model", _for_nothing)
    file = shutil.copy(demo_gguf, tmp_path / "small.gguf")
    with edgesppo.load(demo_gguf, drafts=file, n_threads=1) as model:
        chat = model.chat(temperature=0)
        chat.ask("Who are you?")
        with file.open("ab") as stream:
            stream.write(b"more")
        with pytest.raises(edgesppo.BadModelFile, match=r"small\.gguf: was changed in place"):
            chat.ask("And what is the capital of France?")


def _for_nothing(*args: Any, **options: Any) -> DraftModel:
    """A draft model whose drafts always pay."""
    made = open_draft_model(*args, **options)
    made.cost = 0.0
    return made


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_a_draft_model_is_closed_where_the_engine_cannot_be_made(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise edgesppo.OutOfMemory("no room")

    monkeypatch.setattr(api, "Engine", fail)
    file, before = shutil.copy(demo_gguf, tmp_path / "small.gguf"), open_files()
    with pytest.raises(edgesppo.OutOfMemory, match="no room") as caught:
        edgesppo.load(demo_gguf, drafts=file)
    assert open_files() == before, caught


def test_a_draft_model_of_another_vocabulary_is_refused_by_its_first_token(
    demo_gguf: Path, tmp_path: Path
) -> None:
    data = demo_gguf.read_bytes()
    renamed = data.replace(b"<unused7>", b"<unusedX>", 1)
    assert renamed != data
    path = tmp_path / "other.gguf"
    path.write_bytes(renamed)
    with pytest.raises(edgesppo.UsageError, match=r"token \d+ .* is '<unusedX>', .* '<unused7>'"):
        edgesppo.load(demo_gguf, drafts=path)
    other = write_checkpoint(tmp_path / "other", SMALL)
    convert(other, tmp_path / "small.gguf")
    with pytest.raises(edgesppo.UsageError, match=r"600 tokens, .* 2,560"):
        edgesppo.load(demo_gguf, drafts=tmp_path / "small.gguf")
