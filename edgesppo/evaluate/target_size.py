"""Choose the type of every matrix so that a model loses least within a size.

    1. quantise each matrix alone, to about 4.5 bits, and measure the divergence that this causes;
       with the importance of its columns and without, to keep what is better for it
    2. its loss in another type: that divergence, times the ratio of the two types' errors, because
       small divergences grow with the square of the error; errors are weighted by the importance
    3. an exact knapsack chooses the types
    4. measure the chosen whole, and the recipe's own choice, both with importances and without, on
       samples that were not used before; the best one that is small enough is taken

Every divergence that is measured is recorded beside the output at once, so an interrupted run goes
on with the next matrix.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.evaluate.candidate import model_hash
from edgesppo.evaluate.knapsack import Choice, choose
from edgesppo.evaluate.matrix_record import MatrixRecord, MeasuredMatrix, Tried
from edgesppo.evaluate.quantised import Matrix, error_of, matrices_of
from edgesppo.evaluate.sensitivity import TrialModel, split
from edgesppo.evaluate.target import kinds_of
from edgesppo.llama.mapped_file import MappedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gguf import GGMLQuantizationType

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.evaluate.corpus import Sample
    from edgesppo.evaluate.sensitivity import Importance

_PROBES = ("Q4_K", "Q4_0")


@dataclass(frozen=True)
class ChosenType:
    """The type that was chosen for a matrix, and why.

    `weighted` says whether it is quantised with the importance of its columns. `sensitivity` is the
    measured divergence when it alone has about 4.5 bits, `loss` the one that is expected in the
    chosen type.
    """

    name: str
    type: str
    weighted: bool
    bytes: int
    sensitivity: float
    loss: float


@dataclass(frozen=True)
class Allocation:
    """The types of all matrices.

    `predicted` is the sum of their losses, `measured` the divergence of the whole on held-out
    samples; `is_held_out` is False where there was only one sample, which served for everything.
    `unweighted` is that of the same types without any importance; None where there is none. The
    recipe's own choice is measured, too, and taken where it fits and is better.
    """

    types: tuple[ChosenType, ...]
    bytes: int
    predicted: float
    measured: float
    is_held_out: bool
    unweighted: float | None
    recipe_bytes: int
    recipe_measured: float
    recipe_fits: bool
    is_recipe: bool

    @property
    def weighted(self) -> frozenset[str]:
        """The matrices that are quantised with the importance of their columns."""
        return frozenset(one.name for one in self.types if one.weighted)

    @property
    def overrides(self) -> list[str]:
        """The choice as the converter's overrides, PATTERN=TYPE."""
        escaped = ((one.name.replace(".", r"\."), one.type.lower()) for one in self.types)
        return [f"^{name}$={kind}" for name, kind in escaped]


class Allocator:
    """Measures the matrices of one unquantised model, and chooses their types.

    `recipe` has the types that the recipe gives to each matrix, by name.
    """

    def __init__(
        self,
        candidate: Candidate,
        samples: Sequence[Sample],
        importance: Importance,
        recipe: Mapping[str, GGMLQuantizationType],
        output: Path,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._candidate = candidate
        self._importance = importance
        self._recipe = recipe
        self._report = on_progress or (lambda _stage, _done, _total: None)
        self._file = MappedFile(candidate.path)
        self._matrices = matrices_of(candidate.summary, self._file)
        self._used, self._held_out = split(samples, candidate.n_vocab)
        self._record = MatrixRecord(output, self._fingerprint())

    def close(self) -> None:
        """Close the model file."""
        self._file.close()

    def allocate(
        self,
        budget: int,
        *,
        cost: Callable[[int], int] = lambda n_bytes: n_bytes,
        recipe_fits: bool | None = None,
    ) -> Allocation:
        """The best types within `budget` bytes of matrices. Raises UsageError and OutOfMemory.

        `cost` is what a matrix of so many bytes takes of the budget. `recipe_fits` says whether the
        recipe's own choice is small enough, if that is known from elsewhere.
        """
        choices = self._choices(cost)
        numbers = choose([[Choice(*pair) for pair in one] for one in choices], budget)
        if numbers is None:
            raise UsageError(f"no types fit into {budget:,} bytes")
        kinds = {
            matrix: kinds_of(matrix.row)[number]
            for matrix, number in zip(self._matrices, numbers, strict=True)
        }
        return self._better(kinds, budget, recipe_fits)

    def _better(
        self, kinds: dict[Matrix, GGMLQuantizationType], budget: int, fits: bool | None
    ) -> Allocation:
        """The chosen types, or the recipe's where those prove better on held-out samples."""
        recipe = {matrix: self._recipe[matrix.name] for matrix in self._matrices}
        recipe_bytes = sum(matrix.size_as(kind) for matrix, kind in recipe.items())
        if fits is None:
            fits = recipe_bytes <= budget
        wholes = {False: kinds, True: recipe}
        found = self._measure_wholes(wholes)
        allowed = [key for key in found if fits or not key[0]]
        is_recipe, with_importance = best = min(allowed, key=lambda key: found[key])
        types = tuple(
            self._chosen(matrix, kind, with_importance=with_importance)
            for matrix, kind in wholes[is_recipe].items()
        )
        return Allocation(
            types,
            bytes=sum(one.bytes for one in types),
            predicted=sum(one.loss for one in types),
            measured=found[best],
            is_held_out=bool(self._held_out),
            unweighted=found[is_recipe, False] if len(found) > len(wholes) else None,
            recipe_bytes=recipe_bytes,
            recipe_measured=min(value for key, value in found.items() if key[0]),
            recipe_fits=fits,
            is_recipe=is_recipe,
        )

    def _measure_wholes(
        self, wholes: Mapping[bool, Mapping[Matrix, GGMLQuantizationType]]
    ) -> dict[tuple[bool, bool], float]:
        """The divergence of each, by its key and by whether importances are used.

        Without matrices for which an importance proved better there is nothing to be used.
        """
        known = self._record.known.values()
        weighted = {one.name for one in known if one.is_weighted}
        trials = [(key, use) for use in ((True, False) if weighted else (False,)) for key in wholes]
        stage, found = "Measuring the choice on held-out samples", {}
        with self._trial(self._held_out or self._used) as trial:
            for n, (key, use) in enumerate(trials):
                self._report(stage, n, len(trials))
                found[key, use] = trial.divergence(wholes[key], weighted if use else ())
        self._report(stage, len(trials), len(trials))
        return found

    def _chosen(
        self, matrix: Matrix, kind: GGMLQuantizationType, *, with_importance: bool
    ) -> ChosenType:
        known = self._record.known[matrix.name]
        weighted = with_importance and known.is_weighted
        tried = known.best if weighted else known.plain
        error = self._error(matrix, kind, weighted=weighted)
        size, loss = matrix.size_as(kind), tried.loss(kind.name, known.probe, error)
        return ChosenType(matrix.name, kind.name, weighted, size, tried.divergence, loss)

    def _choices(self, cost: Callable[[int], int]) -> list[list[tuple[int, float]]]:
        """(what it takes of the budget, loss) of each matrix in each type that it can have."""
        self._measure_all()
        found = []
        for matrix in self._matrices:
            known = self._record.known[matrix.name]
            kinds = kinds_of(matrix.row)
            losses = [known.best.loss(kind.name, known.probe) for kind in kinds]
            sizes = [cost(matrix.size_as(kind)) for kind in kinds]
            found.append(list(zip(sizes, losses, strict=True)))
        return found

    def _measure_all(self) -> None:
        """Measure every matrix that is not recorded yet."""
        missing = [matrix for matrix in self._matrices if matrix.name not in self._record.known]
        done = len(self._matrices) - len(missing)
        stage = "Measuring which tensors matter"
        self._report(stage, done, len(self._matrices))
        if not missing:
            return
        with self._trial(self._used) as trial:
            for number, matrix in enumerate(missing, done + 1):
                self._record.add(self._measure(trial, matrix))
                self._report(stage, number, len(self._matrices))

    def _trial(self, samples: Sequence[Sample]) -> TrialModel:
        self._file.check_path()
        return TrialModel(self._candidate, samples, self._importance)

    def _measure(self, trial: TrialModel, matrix: Matrix) -> MeasuredMatrix:
        """What one matrix causes alone, without importance and, where it has some, with it."""
        probe = _probe(matrix)
        plain = self._try(trial, matrix, probe, weighted=False)
        weighted = None
        if matrix.name in self._importance:
            weighted = self._try(trial, matrix, probe, weighted=True)
        return MeasuredMatrix(matrix.name, probe.name, plain, weighted)

    def _try(
        self, trial: TrialModel, matrix: Matrix, probe: GGMLQuantizationType, *, weighted: bool
    ) -> Tried:
        divergence = trial.divergence({matrix: probe}, (matrix.name,) if weighted else ())
        errors = {k.name: self._error(matrix, k, weighted=weighted) for k in kinds_of(matrix.row)}
        return Tried(divergence, errors)

    def _error(self, matrix: Matrix, kind: GGMLQuantizationType, *, weighted: bool) -> float:
        importance = self._importance[matrix.name] if weighted else None
        return error_of(matrix.sample(), kind, importance)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(model_hash(self._candidate).encode())
        digest.update(json.dumps([list(sample.ids) for sample in self._used]).encode())
        for name, values in sorted(self._importance.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()


def _probe(matrix: Matrix) -> GGMLQuantizationType:
    """The type that a matrix is tried in: about 4.5 bits."""
    kinds = kinds_of(matrix.row)
    return next((kind for kind in kinds if kind.name in _PROBES), kinds[0])
