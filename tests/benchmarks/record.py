"""What a benchmark finds: a figure of ours beside a peer's, measured in rounds, taken in turn.

A program of this folder is given a `Report`, tells it what it finds, and prints it; with
`--json FILE` the same goes into a file, which `python -m tests.benchmarks` collects.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

ROUNDS = 5
_TELLING = 2  # rounds
THREADS = 2
# Of programs that write their rounds: who we are, and their figures.
OURS = {"ours", "two contexts"}
OUR_OTHERS = {"repacked", "plain"}  # ours, but with other settings
FIGURES = {
    "turn_s": ("turn", "s", 1.0),
    "prefill": ("prefill", "tokens/s", 1.0),
    "decode": ("decode", "tokens/s", 1.0),
    "pss": ("memory", "MB", 1e6),
}

# A measurement gives a figure for each name.
Measure: TypeAlias = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Record:
    """One comparison. `ratio` is ours by the peer's, as the median over the rounds."""

    name: str
    unit: str
    ours: float  # the median over the rounds, as `theirs` is
    peer: str = ""  # what ours is compared to; empty if it stands alone
    theirs: float | None = None
    ratio: float | None = None
    low: float | None = None  # the least and the greatest ratio of one round
    high: float | None = None
    rounds: int = 1
    more_is_better: bool = False
    goal: float | None = None  # what the ratio should be: at least, if more is better, or at most
    rival: bool = True  # whether the peer does the same; else the ratio is a share, or a saving
    note: str = ""

    @property
    def gain(self) -> float | None:
        """How many times better than the peer we are: above 1 is ahead, whatever the unit."""
        if self.ratio is None or self.ratio <= 0:
            return None
        return self.ratio if self.more_is_better else 1 / self.ratio

    @property
    def spread(self) -> str:
        """The least and the greatest ratio, as text; empty without rounds."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:.3g} to {self.high:.3g}"

    @property
    def verdict(self) -> str:
        """In a word or two, where we stand: beyond what the rounds differ by, or not.

        One round does not tell by how much rounds differ.
        """
        if (
            self.rounds < _TELLING
            or not self.rival
            or self.ratio is None
            or self.low is None
            or self.high is None
        ):
            return ""
        if self.low <= 1 <= self.high:
            return "equal"
        return "ahead" if (self.ratio > 1) == self.more_is_better else "BEHIND"

    @property
    def meets_goal(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio >= self.goal if self.more_is_better else self.ratio <= self.goal

    def __str__(self) -> str:
        text = f"  {self.name}: {number(self.ours)} {self.unit}"
        if self.theirs is not None and self.ratio is not None:
            text += f" | {self.peer} {number(self.theirs)}, ratio {self.ratio:.3f}"
            text += f" ({self.spread}) {self.verdict}".rstrip() if self.spread else ""
        if self.meets_goal is not None:
            sign = "at least" if self.more_is_better else "at most"
            text += f", wanted {sign} {self.goal}: {'yes' if self.meets_goal else 'NO'}"
        return text + (f"; {self.note}" if self.note else "")


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1e-3:
        return f"{value:.3g}"
    return f"{value:.1e}"


def compare(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    more_is_better: bool = False,
    goal: float | None = None,
    rival: bool = True,
    note: str = "",
) -> Record:
    """The record of figures that were measured in the same rounds, in the same order."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True) if other]
    return Record(
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        peer=peer,
        theirs=statistics.median(theirs),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        rounds=len(ratios),
        more_is_better=more_is_better,
        goal=goal,
        rival=rival,
        note=note,
    )


def in_turn(measures: Mapping[str, Measure], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Take all measures in rounds, every other one backwards: who -> figure's name -> its values.

    So whatever slows the machine for a while slows all of them alike.
    """
    found: dict[str, dict[str, list[float]]] = {who: {} for who in measures}
    started = time.perf_counter()
    for one in range(rounds):
        for who in measures if one % 2 == 0 else reversed(list(measures)):
            for name, value in measures[who]().items():
                found[who].setdefault(name, []).append(value)
        print(f"    round {one + 1} of {rounds}, {time.perf_counter() - started:.0f} s", flush=True)
    return found


class Report:
    """The records of one program, printed as they come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.records: list[Record] = []
        self._file: Path | None = options.json

    def add(self, record: Record) -> None:
        """Keep and print a record; the file is whole after each."""
        self.records.append(record)
        print(record, flush=True)
        if self._file is not None:
            self._file.write_text(json.dumps([asdict(one) for one in self.records], indent=1))

    def compare(self, *figures: Any, **more: Any) -> None:
        """Add what `compare` makes of the arguments."""
        self.add(compare(*figures, **more))


def read_records(file: Path) -> list[Record]:
    """The records that a program wrote; none if it wrote no file.

    A program may also write a line for each round, `{"who": {"figure": value, ...}, ...}`.
    """
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    if text.startswith("{"):
        return _of_rounds([json.loads(line) for line in text.splitlines()])
    known = {field.name for field in fields(Record)}
    return [
        Record(**{name: value for name, value in row.items() if name in known})
        for row in json.loads(text)
    ]


def _of_rounds(rounds: list[dict[str, dict[str, Any]]]) -> list[Record]:
    """Records of the one who has a name in OURS beside each other."""
    (ours,) = OURS & rounds[0].keys()
    return [
        compare(
            *(name, unit, [float(one[ours][figure]) / scale for one in rounds]),
            *(who, [float(one[who][figure]) / scale for one in rounds]),
            more_is_better=unit == "tokens/s",
            rival=who not in OUR_OTHERS,
        )
        for figure, (name, unit, scale) in FIGURES.items()
        for who in rounds[0]
        if who != ours and figure in rounds[0][who]
    ]


def argument_parser(description: str | None, *, rounds: int = ROUNDS) -> argparse.ArgumentParser:
    """A parser with the options that all programs have: --rounds, --threads, --json."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records there, too")
    return parser
