"""Engines that draft, or do not, and prompts whose answers repeat the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.planning.run_config import ROWS

if TYPE_CHECKING:
    from edgesppo.engine.engine import Request
    from edgesppo.llama.model import Model

FREE = (1.0,) * len(ROWS)
GREEDY = SamplingParams(temperature=0, max_tokens=120)


def engine(model: Model, *, drafts: bool, **options: int) -> Engine:
    return Engine(model, n_threads=1, draft_costs=FREE if drafts else None, **options)


def run(made: Engine, ids: list[int], params: SamplingParams) -> Request:
    request = made.add(made.prepare(ids, params))
    for _ in made.stream(request):
        pass
    return request


def texts(model: Model) -> list[list[int]]:
    """Prompts whose answers repeat the text; one is much longer than the sliding window."""
    turn = "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"
    asked = [
        "My name is Malik. What is my name?",
        "What is the capital of France? " * 9,
        "a b " * 60,
    ]
    return [
        [model.bos, *model.weights.tokenize(turn.format(text).encode(), special=True)]
        for text in asked
    ]
