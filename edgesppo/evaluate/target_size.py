"""Choose the type of every matrix so that a model loses least within a size.

    1. quantise each matrix alone, to about 4.5 bits, and measure the divergence that this causes;
       with the importance of its columns and without, to keep what is better for it
    2. its loss in another type: that divergence, times the ratio of the two types' errors, because
       small divergences grow with the square of the error; errors are weighted by the importance
    3. an exact knapsack chooses the types
    4. measure the chosen whole, and the recipe's own choice where it is no larger, on samples that
       were not used before; the better one is taken

Every divergence that is measured is recorded beside the output at once, so an interrupted run goes
on with the next matrix.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.evaluate.candidate import model_hash
from edgesppo.evaluate.knapsack import Choice, choose
from edgesppo.evaluate.quantised import Matrix, error_of, matrices_of
from edgesppo.evaluate.record import Record
from edgesppo.evaluate.sensitivity import TrialModel, fitting
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
    samples. The recipe's own choice is measured, too, and taken where it fits and is better.
    """

    types: tuple[ChosenType, ...]
    bytes: int
    predicted: float
    measured: float
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
        n_vocab = candidate.summary.keys["tokenizer.ggml.tokens"]
        half = len(samples) // 2 or 1
        self._used = fitting(samples[:half], n_vocab)
        self._held_out = fitting(samples[half:] or samples, n_vocab)
        self._record = _Record(output, self._fingerprint())

    def finish(self) -> None:
        """Close the model file, and remove the measured divergences, which are needed no more."""
        self._file.close()
        self._record.path.unlink(missing_ok=True)

    def allocate(self, budget: int, *, recipe_fits: bool | None = None) -> Allocation:
        """The best types within `budget` bytes of matrices. Raises UsageError and OutOfMemory.

        `recipe_fits` says whether the recipe's own choice is small enough, if that is known from
        elsewhere.
        """
        choices = self._choices()
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
        stage = "Measuring the choice on held-out samples"
        self._report(stage, 0, 2)
        weighted = {name for name, known in self._record.known.items() if known["weighted"]}
        with self._trial(self._held_out) as trial:
            measured = trial.divergence(kinds, weighted)
            self._report(stage, 1, 2)
            recipe_measured = trial.divergence(recipe, weighted)
        self._report(stage, 2, 2)
        is_recipe = fits and recipe_measured < measured
        chosen = recipe if is_recipe else kinds
        types = tuple(self._chosen(matrix, kind) for matrix, kind in chosen.items())
        return Allocation(
            types,
            bytes=sum(one.bytes for one in types),
            predicted=sum(one.loss for one in types),
            measured=recipe_measured if is_recipe else measured,
            recipe_bytes=recipe_bytes,
            recipe_measured=recipe_measured,
            recipe_fits=fits,
            is_recipe=is_recipe,
        )

    def _chosen(self, matrix: Matrix, kind: GGMLQuantizationType) -> ChosenType:
        known = self._record.known[matrix.name]
        weighted = known["weighted"]
        loss = _loss(known, kind.name, self._error(matrix, kind, weighted=weighted))
        size, sensitivity = matrix.size_as(kind), known["divergence"]
        return ChosenType(matrix.name, kind.name, weighted, size, sensitivity, loss)

    def _choices(self) -> list[list[tuple[int, float]]]:
        """(bytes, loss) of each matrix in each type that it can have."""
        self._measure_all()
        found = []
        for matrix in self._matrices:
            known = self._record.known[matrix.name]
            found.append(
                [
                    (matrix.size_as(kind), _loss(known, kind.name, None))
                    for kind in kinds_of(matrix.row)
                ]
            )
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
                self._record.add(matrix.name, self._measure(trial, matrix))
                self._report(stage, number, len(self._matrices))

    def _trial(self, samples: Sequence[Sample]) -> TrialModel:
        self._file.check_path()
        return TrialModel(self._candidate, samples, self._importance)

    def _measure(self, trial: TrialModel, matrix: Matrix) -> dict[str, Any]:
        """The divergence that one matrix causes, with importance if that is better, and errors."""
        probe = _probe(matrix)
        found = trial.divergence({matrix: probe}, ())
        weighted = False
        if matrix.name in self._importance:
            other = trial.divergence({matrix: probe}, (matrix.name,))
            weighted, found = other < found, min(other, found)
        errors = {k.name: self._error(matrix, k, weighted=weighted) for k in kinds_of(matrix.row)}
        return {
            "divergence": found,
            "weighted": weighted,
            "probe": probe.name,
            "errors": errors,
        }

    def _error(self, matrix: Matrix, kind: GGMLQuantizationType, *, weighted: bool) -> float:
        importance = self._importance[matrix.name] if weighted else None
        return error_of(matrix.sample(), kind, importance)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(model_hash(self._candidate).encode())
        digest.update(json.dumps([list(sample.ids) for sample in self._used]).encode())
        for name, values in sorted(self._importance.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()


class _Record:
    """The file beside an output that has what was measured, by matrix."""

    def __init__(self, output: Path, fingerprint: str) -> None:
        self.path = output.with_name(f".{output.name}.edgesppo-sensitivity")
        self._record = Record(self.path, {"fingerprint": fingerprint})
        self.known: dict[str, dict[str, Any]] = {
            line.pop("name"): line for line in self._record.read()
        }

    def add(self, name: str, found: dict[str, Any]) -> None:
        """Record one matrix. Raises OutputError."""
        self.known[name] = found
        self._record.write({"name": key, **value} for key, value in self.known.items())


def _loss(known: dict[str, Any], kind: str, error: float | None) -> float:
    """The divergence that is expected of a matrix in a type, from that of the probe."""
    errors: dict[str, float] = known["errors"]
    error = errors.get(kind, error)
    assert error is not None
    base = errors[known["probe"]]
    return float(known["divergence"]) * error / base if base else 0.0


def _probe(matrix: Matrix) -> GGMLQuantizationType:
    """The type that a matrix is tried in: about 4.5 bits."""
    kinds = kinds_of(matrix.row)
    return next((kind for kind in kinds if kind.name in _PROBES), kinds[0])
