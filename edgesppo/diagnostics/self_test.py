"""The self-test of a model file: generate ten tokens greedily, and check every logit.

Every byte of a file can be correct and the model still useless.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.api import load
from edgesppo.chat import template
from edgesppo.chat.messages import Message
from edgesppo.errors import BadModelFile
from edgesppo.interior import interior
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import ContextParams

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.llama.model import Model

TOKENS = 10
QUESTION = "Hello! Who are you?"
_N_CTX = 256


@dataclass(frozen=True)
class Trial:
    """What the model generated: `TOKENS` tokens, or fewer if it ended its answer before."""

    n_tokens: int
    text: str


def try_out(path: Path) -> Trial:
    """Load the file and generate an answer.

    Raises BadModelFile if a logit is not finite, all are equal, or the answer is empty.
    """
    with load(path, n_ctx=_N_CTX, tune="off") as loaded:
        params = ContextParams(_N_CTX, n_threads=interior(loaded).engine.n_threads)
        context = Context(interior(loaded).engine.model.weights, params)
        try:
            tokens = _generate(interior(loaded).engine.model, context, path)
        finally:
            context.close()
        text = b"".join(map(interior(loaded).engine.model.piece, tokens)).decode("utf-8", "replace")
    return Trial(len(tokens), text)


def _generate(model: Model, context: Context, path: Path) -> list[int]:
    """The most probable tokens of an answer to QUESTION."""
    batch, prompt = Batch(_N_CTX), template.encode(model, [Message("user", QUESTION)])
    written: list[int] = []
    position, fed = 0, prompt
    while len(written) < TOKENS:
        batch.clear()
        row = batch.add(0, position, fed, logits=True)
        context.decode(batch)
        token = _best(context.logits(row), path)
        if token in model.end_tokens:
            break
        written.append(token)
        position, fed = position + len(fed), [token]
    if not written:
        raise BadModelFile(f"{path} failed its self-test: it ends its answer before it begins")
    return written


def _best(logits: list[float], path: Path) -> int:
    """The token with the greatest logit. Raises BadModelFile for logits that cannot be right."""
    if not all(map(math.isfinite, logits)):
        raise BadModelFile(f"{path} failed its self-test: its logits are not finite")
    best = max(logits)
    if best == min(logits):
        raise BadModelFile(f"{path} failed its self-test: all its logits are {best:g}")
    return logits.index(best)
