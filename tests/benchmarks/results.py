"""What a whole run found, as JSON and as a Markdown page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from edgesppo.system.units import duration
from tests.benchmarks.record import Record, number
from tests.benchmarks.suite import PARTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.machine import Machine

LIMITS = "limits"
_HEAD = "| | ours | compared to | theirs | ratio | spread | rounds | |"
_LINE = "| --- | ---: | --- | ---: | ---: | --- | ---: | --- |"
_INTRO = """\
# Performance

Measured on one machine, in rounds in which ours and the peer took turns. A figure is the median of
its rounds. *Ratio* is ours divided by theirs, the median again, and *spread* its least and
greatest; where the spread contains 1, the two are equal. Only ratios can be compared between
machines.

`llama-bench`, `llama-server` and the other programs of that name are llama.cpp's. `Llama` is the
class of llama-cpp-python, and `llama_cpp.server` its server. *pip's build* is llama.cpp as `pip
install llama-cpp-python` compiles it here, *same build* llama.cpp compiled as ours is. *Edge* and
*standard* are the two layouts of a converted file: see `--layout` in [commands](commands.md).

{models}
"""
_MODELS = "The models have random weights of the shapes of Gemma-2 2B and, where it says so, 9B."
_SMALL = """\
This was a quick run: three rounds, with models of random weights of a fifth of Gemma-2 2B's size,
and a still smaller checkpoint to convert."""


@dataclass
class Results:
    """The records of every benchmark that ran, and those that failed."""

    command: str
    machine: Machine
    quick: bool = False
    records: dict[str, list[Record]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # benchmark -> the end of its output
    seconds: dict[str, float] = field(default_factory=dict)
    others: float = 0.0  # share of the processors that other programs used

    def write_json(self, path: Path) -> None:
        """Write everything, for programs."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def keep(self, path: Path) -> str:
        """Take over what another run found on the same machine; returns a line that says so."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return f"Nothing is kept: there is no {path}"
        same = {**kept["machine"], "date": self.machine.date} == asdict(self.machine)
        if kept["quick"] != self.quick or not same:
            return "Nothing is kept: that run was on another machine, or with other models"
        self.command = f"{kept['command']}, then {self.command}"
        self.records = {
            name: [Record(**record) for record in records]
            for name, records in kept["records"].items()
        }
        self.seconds, self.failed = kept["seconds"], kept["failed"]
        self.others = max(self.others, kept["others"])
        return f"Kept: {', '.join(self.records)}"

    def behind(self) -> list[tuple[str, Record]]:
        """The records in which a peer is better than we are, beyond what the rounds differ by."""
        return [
            (name, record)
            for name, records in self.records.items()
            for record in records
            if name != LIMITS and record.verdict == "BEHIND"
        ]

    def missed(self) -> list[tuple[str, Record]]:
        """The records that do not reach what we want of them."""
        return [
            (name, record)
            for name, records in self.records.items()
            for record in records
            if name != LIMITS and record.meets_goal is False
        ]

    def markdown(self, plot: str = "") -> str:
        """A page of tables; `plot` is the name of a picture beside it."""
        parts = [_INTRO.format(models=_SMALL if self.quick else _MODELS)]
        if plot:
            parts.append(f"![How many times better than llama.cpp edgesppo is]({plot})\n")
        parts.append("\n".join(["| | |", "| --- | --- |", *self._facts()]) + "\n")
        parts += [self._behind_text(), *map(self._table, self.records)]
        if self.failed:
            rows = [f"- {name}: {_last_line(text)}" for name, text in self.failed.items()]
            parts.append("## What failed\n\n" + "\n".join(rows) + "\n")
        return "\n".join(parts)

    def _facts(self) -> list[str]:
        facts = [("command", f"`{self.command}`"), *self.machine.lines()]
        facts.append(("other programs", f"used {self.others:.0%} of the processors"))
        facts.append(("time", duration(sum(self.seconds.values()))))
        return [f"| {name} | {text} |" for name, text in facts]

    def _behind_text(self) -> str:
        behind, missed = self.behind(), self.missed()
        text = "## Where we are behind\n\n"
        if not behind:
            text += "Nowhere in this run.\n"
        for name, record in behind:
            text += f"- {_comparison(name, record)}{'; ' + record.note if record.note else ''}\n"
        if missed:
            text += "\nAnd of what we want to reach, this is missed:\n\n"
        for name, record in missed:
            sign = "at least" if record.more_is_better else "at most"
            text += f"- {_comparison(name, record)}; wanted: {sign} {record.goal}\n"
        return text

    def _table(self, name: str) -> str:
        rows = [_row(record) for record in self.records[name]]
        if name == LIMITS:
            return _limits(PARTS[name].title, self.records[name])
        table = "\n".join([f"## {PARTS[name].title}\n", _HEAD, _LINE, *rows])
        notes = [f"*{one.name}*: {one.note}." for one in self.records[name] if one.note]
        return table + "\n" + "".join(f"\n{note}\n" for note in dict.fromkeys(notes))


def _row(record: Record) -> str:
    theirs = "" if record.theirs is None else number(record.theirs)
    cells = [
        *(record.name, f"{number(record.ours)} {record.unit}".strip(), record.peer, theirs),
        *(_ratio(record), record.spread, str(record.rounds), record.verdict),
    ]
    if record.verdict == "BEHIND":
        cells[-1] = "**behind**"
    return f"| {' | '.join(cells)} |"


def _limits(title: str, records: list[Record]) -> str:
    lines = [
        f"## {title}\n",
        "The share of what this machine can do at all; 1 would be its limit.\n",
        "| | ours | limit | of | share | spread | rounds |",
        "| --- | ---: | --- | ---: | ---: | --- | ---: |",
    ]
    for one in records:
        limit, theirs = one.peer.removeprefix("limit: "), number(one.theirs or 0)
        share = one.gain or 0
        low, high = sorted(_share(value, one) for value in (one.low, one.high))
        lines.append(
            f"| {one.name} | {number(one.ours)} {one.unit} | {limit} | {theirs} {one.unit}"
            f" | {share:.2f} | {low:.2f} to {high:.2f} | {one.rounds} |"
        )
    whys = [f"- {one.name}: {one.note}." for one in records if one.note]
    return (
        "\n".join(lines) + ("\n\nBelow 0.8, because:\n\n" + "\n".join(whys) if whys else "") + "\n"
    )


def _comparison(name: str, record: Record) -> str:
    return f"{record.name}: {_ratio(record)} of {record.peer} (*{PARTS[name].title}*)"


def _share(ratio: float | None, record: Record) -> float:
    if not ratio:
        return 0.0
    return ratio if record.more_is_better else 1 / ratio


def _ratio(record: Record) -> str:
    return "" if record.ratio is None else f"{record.ratio:.2f}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
