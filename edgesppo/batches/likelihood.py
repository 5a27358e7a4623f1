"""The log-likelihood of given answers under a model: how probable it finds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.batches.answer_figures import mean_with_interval
from edgesppo.chat.messages import Message
from edgesppo.engine.forward import ForwardPass
from edgesppo.interior import interior
from edgesppo.llama import logprobs
from edgesppo.planning.run_config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesppo.batches.recipe import Recipe
    from edgesppo.loaded_model import LoadedModel


@dataclass(frozen=True)
class Likelihood:
    """The sum of the log-probabilities of an answer's tokens, its end included; their number."""

    log: float
    n_tokens: int


@dataclass(frozen=True)
class LikelihoodFigures:
    """The log-likelihood of many answers: the mean of an answer with its 95 % interval."""

    answers: int
    tokens: int
    mean: float | None
    interval: tuple[float, float] | None
    per_token: float | None


def likelihoods(
    loaded: LoadedModel,
    recipe: Recipe,
    pairs: Sequence[tuple[str, str]],
    on_progress: Callable[[float], None],
) -> list[Likelihood | None]:
    """The likelihood of each (question, answer); None where they are longer than the context.

    `on_progress` is called with the fraction that is done.
    """
    engine = interior(loaded).engine
    model = engine.model
    sequences = []
    for question, answer in pairs:
        prompt = recipe.prompt_ids(model, [Message("user", question)])
        text = f"{recipe.answer_break}{answer.strip()}"
        sequences.append((prompt, [*model.tokenize(text), model.end_of_turn]))
    fitting = [len(p) + len(a) for p, a in sequences if len(p) + len(a) <= loaded.n_ctx]
    threads = RunConfig(engine.n_threads, engine.n_threads_batch)
    forward = ForwardPass(model.weights, model.summary, threads, max(fitting, default=0))
    found: list[Likelihood | None] = []
    try:
        for n, (prompt, answer_ids) in enumerate(sequences, 1):
            fits = len(prompt) + len(answer_ids) <= loaded.n_ctx
            found.append(_likelihood(forward, prompt, answer_ids) if fits else None)
            on_progress(n / len(sequences))
    finally:
        forward.close()
    return found


def _likelihood(forward: ForwardPass, prompt: list[int], answer: list[int]) -> Likelihood:
    ids = [*prompt, *answer]
    size = 4 * forward.n_vocab
    logs = []
    for position, block in forward.blocks(ids[:-1], len(prompt) - 1):
        for n in range(len(block) // size):
            token = ids[position + n + 1]
            logs.append(logprobs.of_row(block[n * size : (n + 1) * size], token, 0).logprob)
    return Likelihood(math.fsum(logs), len(answer))


def likelihood_figures(found: Sequence[Likelihood | None]) -> LikelihoodFigures:
    """The figures of the answers that fitted into the context."""
    scored = [one for one in found if one is not None]
    n_tokens = sum(one.n_tokens for one in scored)
    mean, interval = mean_with_interval([one.log for one in scored])
    per_token = math.fsum(one.log for one in scored) / n_tokens if n_tokens else None
    return LikelihoodFigures(len(scored), n_tokens, mean, interval, per_token)


def paired_difference(
    these: Sequence[Likelihood | None], others: Sequence[Likelihood | None]
) -> tuple[float | None, tuple[float, float] | None]:
    """By how much these answers are more likely than the others, with its 95 % interval.

    The mean of the differences of the same answers.
    """
    pairs = zip(these, others, strict=True)
    return mean_with_interval([a.log - b.log for a, b in pairs if a is not None and b is not None])
