"""How long each matrix takes in the decoding of one token, measured on this machine."""

from __future__ import annotations

import statistics
from contextlib import closing
from typing import TYPE_CHECKING

from edgesppo.engine.forward import ForwardPass
from edgesppo.evaluate.candidate import RunOptions, find_candidate
from edgesppo.llama.weight_writer import ProductTimer

if TYPE_CHECKING:
    from pathlib import Path

_TOKENS = 16
_N_CTX = 32


def decode_costs(path: Path) -> dict[str, float]:
    """The median seconds of each weight's product, for one token, by the weight's name.

    Each product is waited for alone, so the sum is some more than a token takes.
    """
    candidate = find_candidate(path, RunOptions(gpu="off"))
    tuning, timer = candidate.settings(_N_CTX), ProductTimer()
    with closing(candidate.weights(repack=tuning.repack)) as loaded:
        forward = ForwardPass(loaded, candidate.summary, tuning, _N_CTX, observer=timer)
        with closing(forward):
            for token in range(_TOKENS):
                for _block in forward.blocks([token], 0):
                    pass
    weights = {tensor.name for tensor in candidate.summary.tensors if len(tensor.dims) == 2}
    return {
        name: statistics.median(seconds)
        for name, seconds in timer.seconds.items()
        if name in weights
    }
