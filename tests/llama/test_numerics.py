"""The runtime's logits against those of transformers' Gemma2ForCausalLM on the same checkpoint.

The reference is written by `python -m edgesppo.dev.train_demo.reference`: float32, eager attention,
a chat of several turns that is far longer than the sliding window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from edgesppo.planning.run_config import ContextParams
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = ROOT / "tests" / "data" / "demo_reference_logits.npz"
LARGEST_DIFFERENCE = {"f32": 0.005, "f16": 0.01}
CLEAR_GAP = 0.1


def _logits(gguf: Path, ids: list[int], positions: list[int], cache_type: str) -> np.ndarray:
    """The logits at `positions` of a prompt in one batch: float32 [n_positions, n_vocab]."""
    model = Model(gguf)
    n_ctx = model.n_ctx_train
    params = ContextParams(n_ctx=n_ctx, n_batch=n_ctx, n_outputs=n_ctx, cache_type=cache_type)
    context, batch = Context(model.weights, params), Batch(n_ctx)
    for position, token in enumerate(ids):
        batch.add(0, position, [token], logits=True)
    context.decode(batch)
    rows = np.array([context.logits(position) for position in positions], dtype=np.float32)
    context.close()
    model.close()
    return rows


@pytest.mark.parametrize("cache_type", ["f32", "f16"])
def test_logits_equal_the_references(
    demo_f32: Path, cache_type: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(REFERENCE) as stored:
        ids, positions, expected = stored["ids"], stored["positions"], stored["logits"]
    found = _logits(demo_f32, ids.tolist(), positions.tolist(), cache_type)
    difference = np.abs(found - expected).max()
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > CLEAR_GAP
    same_top = found.argmax(axis=1) == expected.argmax(axis=1)
    with capsys.disabled():
        print(
            f"\n  {cache_type} KV cache: largest difference {difference:.5f} over {len(positions)} "
            f"positions, same top token at {same_top.sum()}, {clear.sum()} have a clear one"
        )
    assert same_top[clear].all()
    assert difference <= LARGEST_DIFFERENCE[cache_type]


def test_the_reference_reaches_beyond_the_sliding_window(demo_f32: Path) -> None:
    with np.load(REFERENCE) as stored:
        ids = stored["ids"]
    model = Model(demo_f32)
    window = model.weights.n_swa
    model.close()
    assert 0 < window < len(ids) / 2
