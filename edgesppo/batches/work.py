"""`Work`: the rows that are to be answered, and `Answerer`: what answers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from edgesppo.batches.input import Place
    from edgesppo.batches.recipe import Recipe
    from edgesppo.batches.request import Label
    from edgesppo.batches.result import BatchResult
    from edgesppo.sampling.params import SamplingParams


@dataclass
class Counts:
    """What a batch has done so far, for progress: rows, and tokens of this run."""

    rows: int
    done: int = 0
    errors: int = 0
    resumed: int = 0  # of those done, by an earlier run
    running: int = 0  # answers under way
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


Report: TypeAlias = Callable[[Counts], None]


class Rows(Protocol):
    """Where the bytes of a row are read."""

    def read(self, place: Place, /) -> bytes:
        """The bytes of a row."""


@dataclass(frozen=True)
class Work:
    """Rows to be answered by a recipe; `labels` has what was read of each in advance."""

    rows: Rows
    labels: Mapping[int, Label]
    recipe: Recipe

    def in_order(self, places: Iterable[Place]) -> list[Place]:
        """The rows in the order of their prompts: neighbours share the longest prefixes."""
        return sorted(places, key=lambda place: (self.labels[place.row].order, place.key))


class Answerer(Protocol):
    """What answers rows: a loaded model, or the machines of a cluster.

    All answers come from the model called `name`, whose file has the fingerprint, and which has
    these sampling parameters where nothing else is asked for.
    """

    name: str
    fingerprint: str
    defaults: SamplingParams

    def answer(
        self, work: Work, places: Iterable[Place], counts: Counts, report: Report | None
    ) -> Generator[BatchResult, None, None]:
        """The result of each row, as it is done. Leaving the iterator stops all answers."""
