"""The data step of Self-Play Preference Optimization, as its authors run it (arXiv 2405.00675).

    OUT/responses.jsonl         the resumable file: a line for each prompt and seed
    OUT/responses_0.json ...    for each seed a JSON list of texts in the prompts' order, which the
                                published ranking script reads
    OUT/prompts/train.jsonl     the prompts of this part, as a data set of the same length

A prompt is answered once for each seed, so that at most one answer is lost by a crash.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.batches.input import InputRows, as_lines, open_rows
from edgesppo.batches.recipe import Recipe, take_part
from edgesppo.batches.request import BadRow, decode
from edgesppo.errors import OutputError, UsageError
from edgesppo.sampling.params import SamplingParams
from edgesppo.system.fs import FileSystem, atomic_write, cannot_write
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.batches.output import ResultFile

SEEDS = (0, 50, 100, 150, 200)
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 2048}
RESPONSES = "responses.jsonl"
_PROMPTS = Path("prompts") / "train.jsonl"
