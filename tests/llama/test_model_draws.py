"""Tokens that are drawn from a model's own logits, one by one and behind drafts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.engine.runner import Runner
from edgesppo.llama import sampler_chain
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from edgesppo.llama.sampler_chain import build_chain
from edgesppo.planning.run_config import ContextParams
from edgesppo_convert import convert
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.sampling_exact import LARGEST_Z, exact, uniform, z_score
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.engine.request import Request
    from edgesppo.loaded_model import LoadedModel

N_CTX = 512
N_DRAWS = 20_000 if LONG else 4_000
EOS = 1


@pytest.mark.parametrize("least", [0, 1 << 30], ids=["our top-p", "llama.cpp's top-p"])
@pytest.mark.parametrize("order", [("temperature", "top_p"), ("top_p", "temperature")])
def test_draws_from_a_model_have_the_exact_distribution(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...], least: int
) -> None:
    monkeypatch.setattr(sampler_chain, "_LARGE_VOCABULARY", least)
    ids = demo.tokenize("Tell me something.", chat=True)
    context = Context(demo._interior.engine.model.weights, ContextParams(n_ctx=64))
    batch = Batch(64)
    row = batch.add(0, 0, ids, logits=1)
    context.decode(batch)
    logits = context.logits(row)
    params = SamplingParams(temperature=4.0, top_p=0.9, samplers=order, seed=5)
    made = build_chain(params, demo._interior.engine.model.weights, N_CTX)
    drawn = [context.sample(made, row) for _ in range(N_DRAWS)]
    made.close()
    context.close()
    expected = exact(params, logits)
    assert (expected > 0).sum() > 1
    assert z_score(np.bincount(drawn, minlength=len(logits)), expected) < LARGEST_Z


def test_the_best_token_of_a_model_is_the_same_with_and_without_candidates(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = demo.tokenize("Tell me something.", chat=True)
    context = Context(demo._interior.engine.model.weights, ContextParams(n_ctx=64, n_outputs=64))
    batch, found = Batch(64), []
    batch.add(0, 0, ids, logits=len(ids))
    context.decode(batch)
    for least in (0, 1 << 30):
        monkeypatch.setattr(sampler_chain, "_LARGE_VOCABULARY", least)
        greedy, weights = SamplingParams(temperature=0), demo._interior.engine.model.weights
        made = build_chain(greedy, weights, 64, is_alone=False)
        assert isinstance(made, sampler_chain.GreedyChain) == (least == 0)
        found.append([context.sample(made, row) for row in range(len(ids))])
        made.close()
    assert found[0] == found[1]
    assert len(set(found[0])) > 3
    context.close()


def test_draws_behind_guesses_have_the_exact_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token against the exact distribution after its prefix, computed again in one batch; and
    draft tokens are drawn as often as they are probable.

    The weights are random, to save time, and the temperature is so low that the answers repeat
    themselves and drafts are right as often as wrong.
    """
    shape = Shape(2, 64, 64, 2, 1, 32, 600, 256, 64)
    convert(write_checkpoint(tmp_path / "files", shape), tmp_path / "small.gguf", type="f32")
    model, rng, places = Model(tmp_path / "small.gguf"), np.random.default_rng(1), []
    bans = {model.end_of_turn: -100, EOS: -100}
    cold = {"temperature": 0.045, "min_p": 0.01, "samplers": ("min_p", "temperature")}
    params = SamplingParams(**cold, logit_bias=bans, max_tokens=90)
    ids = [model.bos, *range(300, 310)]
    guesses: dict[tuple[int, int], int] = {}  # (request's seed, position) -> draft token

    sample = Runner.sample

    def noted(runner: Runner, request: Request, entry: int) -> tuple[list[int], str | None]:
        seen, draft = len(request.tokens), list(request.draft)
        drawn, reason = sample(runner, request, entry)
        for i, guess in enumerate(draft[: len(drawn)]):
            guesses[request.params.seed or 0, seen + i] = guess
        return drawn, reason

    monkeypatch.setattr(Runner, "sample", noted)
    engine = Engine(model, n_seqs=2, n_threads=1, draft_costs=(1.0, 1.2, 1.5, 2.0))
    anew = Context(model.weights, ContextParams(n_ctx=256, n_batch=256, n_outputs=256))
    seed = n_drafted = n_accepted = n_possible = 0
    right, probable = [], []  # for each draft token: whether it was drawn, and its probability
    while len(places) < N_DRAWS:
        requests = [
            engine.add(engine.prepare(ids, params.replace(seed=seed + i))) for i in range(2)
        ]
        seed += len(requests)
        while any(request.finish_reason is None for request in requests):
            engine.step()
        for request in requests:
            assert request.drafter is not None
            n_drafted += request.drafter.n_drafted
            n_accepted += request.drafter.n_accepted
            rows = _rows(anew, request.tokens)[request.n_prompt - 1 :]
            for place, row in zip(range(request.n_prompt, len(request.tokens)), rows, strict=False):
                token, expected = request.tokens[place], exact(params, row)
                n_possible += int((expected > 0).sum())
                places.append(uniform(token, expected, rng))
                guess = guesses.get((request.params.seed or 0, place))
                if guess is not None:
                    right.append(token == guess)
                    probable.append(expected[guess])
    for made in (engine, anew, model):
        made.close()
    assert n_accepted > N_DRAWS / 20
    assert n_drafted - n_accepted > N_DRAWS / 20
    assert n_possible > 5 * N_DRAWS, "there was a choice"
    counts = np.histogram(places, 50, (0, 1))[0]
    assert z_score(counts, np.full(50, 1 / 50)) < LARGEST_Z, counts
    chances = np.array(probable)
    surplus = np.sum(right) - chances.sum()
    assert abs(surplus) < LARGEST_Z * np.sqrt((chances * (1 - chances)).sum()), surplus


def _rows(context: Context, tokens: list[int]) -> list[np.ndarray]:
    """The logits after each token, float32 [n_vocab]; valid until the next call."""
    batch = Batch(len(tokens))
    batch.add(0, 0, tokens, logits=len(tokens))
    context.remove(0, 0)
    context.decode(batch)
    return [np.frombuffer(context.row(i), dtype=np.float32) for i in range(len(tokens))]
