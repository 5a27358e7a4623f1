"""Draws a run's headlines as one picture: how many times better than llama.cpp we are, by task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.record import Record
    from tests.benchmarks.results import Results

_AHEAD, _BEHIND, _TEXT = "#2a7f62", "#b4492d", "#333333"
_TICKS = (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)
_SAME = 0.03  # nearer to 1 than this is drawn as neither


@dataclass(frozen=True)
class Headline:
    """What a person wants to know, and the record that tells it."""

    text: str
    benchmark: str
    name: str  # how the record's name begins
    peer: str  # how its peer's name begins
    faster: str = "faster"


HEADLINES = (
    Headline("Converting a checkpoint", "conversion", "conversion", "llama.cpp's two steps"),
    Headline("Starting", "memory", "import and load", "Llama, standard"),
    Headline("Memory in use", "memory", "memory after", "Llama, standard", "smaller"),
    Headline("Reading a prompt", "speed", "prefill", "llama-bench, pip's"),
    Headline("Writing an answer", "speed", "decode", "llama-bench, pip's"),
    Headline("A whole turn", "speed", "a turn", "Llama, pip's"),
    Headline("First word in turn 10", "server", "first token of turn 10", "llama-server"),
    Headline(
        "First word after a restart", "server", "first token of turn 10 after", "llama-server"
    ),
    Headline("Four people at once", "server", "4 clients, distinct prompts", "llama-server"),
    Headline("Calibrating", "quality", "calibration", "llama-imatrix"),
    Headline("Measuring quality", "quality", "perplexity", "llama-perplexity"),
)


def headlines(results: Results) -> list[tuple[Headline, Record]]:
    """The headlines that this run can tell."""
    found = []
    for headline in HEADLINES:
        for record in results.records.get(headline.benchmark, []):
            fits = record.name.startswith(headline.name) and record.peer.startswith(headline.peer)
            if fits and record.gain:
                found.append((headline, record))
                break
    return found


def draw(results: Results, path: Path) -> bool:
    """Write the picture as SVG; False if there is nothing to draw."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = headlines(results)
    if not rows:
        return False
    # The same figures give the same file, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "edgesppo", "svg.fonttype": "none"})
    gains = [record.gain or 1.0 for _, record in rows]
    figure, axes = pyplot.subplots(figsize=(8.5, 1.4 + 0.42 * len(rows)))
    places = range(len(rows))
    # Bars begin at 1, on a logarithmic axis: twice as good is as long as half as good.
    widths = [gain - 1 for gain in gains]
    axes.barh(places, widths, left=1, color=[_colour(gain) for gain in gains], height=0.62)
    axes.axvline(1.0, color=_TEXT, linewidth=1)
    axes.set_xscale("log")
    ticks = [tick for tick in _TICKS if min(gains) <= tick * 2 and tick <= max(gains) * 2]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks(places, [headline.text for headline, _ in rows])
    axes.invert_yaxis()
    for place, (gain, (headline, _)) in enumerate(zip(gains, rows, strict=True)):
        label, at = _label(gain, headline), max(gain, 1.0) * 1.03
        axes.text(at, place, label, va="center", color=_TEXT)
    axes.set_xlim(min([*gains, 0.9]) / 1.1, max(gains) * 2.2)
    axes.set_title(
        "edgesppo beside llama.cpp, as pip installs it: to the right is better", loc="left"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, 0.01, _source(results), fontsize=7, color=_TEXT)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return True


def _colour(gain: float) -> str:
    if abs(gain - 1) < _SAME:
        return "#999999"
    return _AHEAD if gain > 1 else _BEHIND


def _label(gain: float, headline: Headline) -> str:
    if abs(gain - 1) < _SAME:
        return "the same"
    if gain > 1:
        return (
            f"{gain:.1f}× {headline.faster}" if gain >= 1.1 else f"{gain - 1:.0%} {headline.faster}"
        )
    return f"{1 - gain:.0%} worse"


def _source(results: Results) -> str:
    machine = results.machine
    return f"{machine.date}, {machine.processor}, {machine.threads} threads: {results.command}"
