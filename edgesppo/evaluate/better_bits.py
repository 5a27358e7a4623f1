"""Plan a conversion to a target size: read what to measure on, and choose the types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.evaluate.candidate import find_unquantised, model_hash
from edgesppo.evaluate.importance import read_sums
from edgesppo.evaluate.self_dialogues import DEFAULT_DIALOGUES, SelfDialogues
from edgesppo.evaluate.target import Target
from edgesppo.evaluate.target_size import Allocation, Allocator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.evaluate.candidate import RunOptions
    from edgesppo.evaluate.corpus import Dialogues, Text


@dataclass(frozen=True)
class TargetOptions:
    """A target, as bytes of the file or as bits per weight, and what to measure on."""

    target_size: int | None
    target_bpw: float | None
    type: str
    imatrix: Path | None
    text: Text | None
    dialogues: Dialogues | None
    run: RunOptions
    on_progress: Callable[[str, int, int], None]


def check_target(source: str, type: str, size: int | None, bpw: float | None) -> None:
    """Raise UsageError for a target that no types can meet; runs no model."""
    from edgesppo_convert import look_ahead

    Target(look_ahead(source, type=type), size, bpw).check()


class TargetPlan:
    """The choice of types for the conversion of one checkpoint folder into `output`."""

    def __init__(self, source: str, output: Path, options: TargetOptions) -> None:
        from gguf import GGMLQuantizationType

        from edgesppo_convert import look_ahead
        from edgesppo_convert.quant.imatrix import read_importance

        imatrix = options.imatrix
        self._outlook = look_ahead(source, type=options.type, imatrix=imatrix)
        recipe = {t.name: GGMLQuantizationType[t.type] for t in self._outlook.tensors}
        importance = {}
        if imatrix is not None:
            read_sums(imatrix)  # the older format cannot be written in part: refuse it early
            importance = dict(read_importance(imatrix).values)
        self._target = Target(self._outlook, options.target_size, options.target_bpw)
        self._target.check()
        base = find_unquantised(source, options.run)
        self._own = SelfDialogues(base, output, model_hash(base))
        corpus = self._own.corpus(
            options.text, options.dialogues, DEFAULT_DIALOGUES, options.run, options.on_progress
        )
        self._allocator = Allocator(
            base, corpus.samples, importance, recipe, output, options.on_progress
        )

    def allocate(self) -> Allocation:
        """Measure, and choose. Raises UsageError, OutOfMemory and OutputError."""
        target = self._target
        return self._allocator.allocate(target.budget, recipe_fits=target.recipe_fits)

    def remove_leftovers(self) -> None:
        """Remove what was kept to resume; the conversion is complete."""
        self._allocator.finish()
        self._own.remove()
