"""What was measured of each matrix of a model, recorded beside an output at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.evaluate.record import Record

if TYPE_CHECKING:
    from pathlib import Path

_VERSION = 2  # of the lines


@dataclass(frozen=True)
class Tried:
    """The divergence that a matrix causes in the type of the probe, and its error in each type."""

    divergence: float
    errors: dict[str, float]

    def loss(self, kind: str, probe: str, error: float | None = None) -> float:
        """The divergence that is expected in a type, which has this error if it is not known."""
        base = self.errors[probe]
        found = self.errors.get(kind, error)
        assert found is not None
        return self.divergence * found / base if base else 0.0


@dataclass(frozen=True)
class MeasuredMatrix:
    """What was measured of one matrix, without importance and with it."""

    name: str
    probe: str
    plain: Tried
    weighted: Tried | None

    @property
    def is_weighted(self) -> bool:
        """Whether it loses less with the importance of its columns."""
        return self.weighted is not None and self.weighted.divergence < self.plain.divergence

    @property
    def best(self) -> Tried:
        """The better one of the two."""
        return self.weighted if self.is_weighted and self.weighted is not None else self.plain


class MatrixRecord:
    """The file beside an output that has what was measured, by matrix."""

    def __init__(self, output: Path, fingerprint: str) -> None:
        head = {"version": _VERSION, "fingerprint": fingerprint}
        self._record = Record(_path(output), head)
        self.known = {line["name"]: _measured(line) for line in self._record.read()}

    def add(self, found: MeasuredMatrix) -> None:
        """Record one matrix. Raises OutputError."""
        self.known[found.name] = found
        self._record.write(map(asdict, self.known.values()))


def remove_record(output: Path) -> None:
    """Remove what is recorded beside `output`, if anything is."""
    _path(output).unlink(missing_ok=True)


def _path(output: Path) -> Path:
    return output.with_name(f".{output.name}.edgesppo-sensitivity")


def _measured(line: dict[str, Any]) -> MeasuredMatrix:
    tried = {key: line[key] and Tried(**line[key]) for key in ("plain", "weighted")}
    return MeasuredMatrix(**{**line, **tried})
