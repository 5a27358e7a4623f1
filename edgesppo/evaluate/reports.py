"""What was measured of a model file, with its name, size and speed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgesppo.evaluate.statistics import DivergenceFigures, PerplexityFigures


@dataclass(frozen=True)
class PerplexityReport:
    """What `perplexity` measured.

    Attributes:
        model: The model's name.
        figures: Over all scored tokens; of dialogues, over those of answers.
        everything: Of dialogues, over all tokens; None for a text.
        left_over: Tokens at the end of a text that fill no chunk, and were not used.
        tokens_per_second: How fast the model read the text here.
        notes: What looks wrong.
    """

    model: str
    figures: PerplexityFigures
    everything: PerplexityFigures | None
    left_over: int
    bytes: int
    bits_per_weight: float
    tokens_per_second: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DivergenceReport:
    """What `divergence` measured; see PerplexityReport.

    `kld` has the divergence of every token that `figures` are about.
    """

    reference: str
    model: str
    figures: DivergenceFigures
    everything: DivergenceFigures | None
    left_over: int
    bytes: int
    bits_per_weight: float
    tokens_per_second: float
    notes: tuple[str, ...]
    kld: NDArray[np.float64] = field(repr=False, compare=False)
