"""What `edgesppo eval` prints: figures, tables, and histograms of divergence."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError, UsageError
from edgesppo.system.sanitize import one_line
from edgesppo.system.units import size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgesppo.evaluate.reports import DivergenceReport, PerplexityReport
    from edgesppo.evaluate.statistics import DivergenceFigures, PerplexityFigures

_BAR = 40
# The histogram's bins: decades of divergence.
_LOWEST, _HIGHEST = -6, 0


def perplexity_lines(report: PerplexityReport) -> Iterator[str]:
    """The lines for one model."""
    found = report.figures
    what = "text" if report.everything is None else "answers"
    yield f"{report.model}, {size(report.bytes)}, {report.bits_per_weight:.2f} bits per weight"
    yield f"  perplexity  {_perplexity(found)}  ({found.tokens:,} tokens of {what})"
    if (every := report.everything) is not None:
        yield f"  all tokens  {_perplexity(every)}  ({every.tokens:,} tokens)"
    yield f"  speed       {report.tokens_per_second:,.0f} tokens per second"
    yield from _left_over(report.left_over)


def _perplexity(found: PerplexityFigures) -> str:
    """The perplexity with its error, which a handful of tokens does not have."""
    error = f" +- {found.perplexity_error:.4f}" if found.perplexity_error else ""
    return f"{found.perplexity:.4f}{error}"


def divergence_lines(reports: Sequence[DivergenceReport]) -> Iterator[str]:
    """The figures and the histogram of one model, or a table of several."""
    first = reports[0]
    if len(reports) > 1:
        yield from _table(reports)
    else:
        yield (
            f"{first.model}, {size(first.bytes)}, {first.bits_per_weight:.2f} bits per weight,"
            f" against {first.reference}"
        )
        yield f"{first.figures.tokens:,} tokens{'' if first.everything is None else ' of answers'}"
        yield from _figures(first.figures)
        if first.everything is not None:
            yield f"{first.everything.tokens:,} tokens in all"
            yield from _figures(first.everything)
        yield f"  speed           {first.tokens_per_second:,.0f} tokens per second"
        yield "KL divergence of the tokens"
        yield from _histogram(first)
    yield from _left_over(first.left_over)


def _figures(found: DivergenceFigures) -> Iterator[str]:
    pairs = {
        "perplexity": (found.perplexity, found.perplexity_error),
        "of the reference": (found.reference_perplexity, found.reference_perplexity_error),
        "ln of the ratio": (found.ln_ratio, found.ln_ratio_error),
        "mean KLD": (found.kld, found.kld_error),
    }
    for label, (value, error) in pairs.items():
        yield f"  {label:<16} {value:14.6f} +- {error:.6f}"
    for label, value in (
        ("median KLD", found.kld_median),
        ("90% KLD", found.kld_p90),
        ("99% KLD", found.kld_p99),
        ("99.9% KLD", found.kld_p999),
        ("maximum KLD", found.kld_max),
    ):
        yield f"  {label:<16} {value:14.6f}"
    yield f"  {'same top token':<16} {found.same_top:14.3%} +- {found.same_top_error:.3%}"
    yield f"  {'RMS of p':<16} {found.rms_dp:14.3%} +- {found.rms_dp_error:.3%}"


def _table(reports: Sequence[DivergenceReport]) -> Iterator[str]:
    tokens = reports[0].figures.tokens
    what = "tokens" if reports[0].everything is None else "tokens of answers"
    yield f"Against {reports[0].reference}, {tokens:,} {what}"
    width = max(len(one_line(report.model)) for report in reports)
    heads = ("size", "bits/w", "mean KLD", "+-", "99% KLD", "top-1", "perplexity", "tokens/s")
    yield "  " + " " * width + "".join(f"{head:>11}" for head in heads)
    for report in reports:
        found = report.figures
        cells = (
            size(report.bytes),
            f"{report.bits_per_weight:.2f}",
            f"{found.kld:.6f}",
            f"{found.kld_error:.6f}",
            f"{found.kld_p99:.5f}",
            f"{found.same_top:.2%}",
            f"{found.perplexity:.4f}",
            f"{report.tokens_per_second:,.0f}",
        )
        yield f"  {one_line(report.model):<{width}}" + "".join(f"{c:>11}" for c in cells)


def _histogram(report: DivergenceReport) -> Iterator[str]:
    """One line for each decade, as long as its share of the tokens."""
    counts = dict.fromkeys(range(_LOWEST, _HIGHEST + 1), 0)
    for value in report.kld.tolist():
        decade = math.floor(math.log10(value)) if value > 0 else _LOWEST
        counts[min(max(decade, _LOWEST), _HIGHEST)] += 1
    most = max(counts.values())
    for decade, n in counts.items():
        if decade == _LOWEST:
            label = f"below {10.0 ** (decade + 1):g}"
        elif decade == _HIGHEST:
            label = f"from {10.0**decade:g}"
        else:
            label = f"{10.0**decade:g} to {10.0 ** (decade + 1):g}"
        bar = "#" * max(int(n > 0), round(_BAR * n / most))
        yield f"  {label:<16}{n / report.kld.size:8.2%} {bar}".rstrip()


def _left_over(n: int) -> Iterator[str]:
    if n:
        yield f"{n:,} tokens at the end of the text fill no chunk, and were not used"


def check_plot(path: Path) -> None:
    """Refuse a plot that could not be written, before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "--plot needs matplotlib, which is not installed; install its extra: in the clone, "
            'pip install ".[plot]"'
        ) from None
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot writes a PNG, expected a name that ends in .png, not {path.name}")
    if path.exists():
        raise OutputError(f"{path} exists; give another name, or remove it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: its folder does not exist or cannot be written")


def draw(reports: Sequence[DivergenceReport], path: Path) -> None:
    """Draw the histogram of each model's divergence into one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="tight")
    axes = figure.add_subplot()
    bins = [10 ** (_LOWEST + n / 8) for n in range(8 * (_HIGHEST + 1 - _LOWEST) + 1)]
    for report in reports:
        label = f"{one_line(report.model)}: mean {report.figures.kld:.5f}"
        axes.hist(report.kld.clip(bins[0], bins[-1]), bins=bins, histtype="step", label=label)
    axes.set_xscale("log")
    axes.set_xlabel(f"KL divergence from {one_line(reports[0].reference)}, nats")
    axes.set_ylabel("tokens")
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
