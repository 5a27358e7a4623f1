"""Answer the rows of a batch into its output file, with progress, and say what was done."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.loading import choose_model, known_everywhere, open_model
from edgesppo.cli.output import say
from edgesppo.errors import NativeError, OutOfMemory, OutputError
from edgesppo.system.signals import Terminated
from edgesppo.system.units import duration
from edgesppo.terminal.row_progress import RowProgress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.batches.batch import Batch
    from edgesppo.batches.output import ResultFile
    from edgesppo.batches.work import Answerer, Counts


@dataclass(frozen=True)
class Summary:
    """What was done: the output, the counts, and the seconds of this run."""

    output: Path
    counts: Counts
    errors: int  # in the whole output
    seconds: float
    noun: str

    def line(self) -> str:
        """The summary for people."""
        counts = self.counts
        noun = self.noun.removesuffix("s") if counts.done == 1 else self.noun
        parts = [f"{counts.done:,} {noun} in {self.output}"]
        if counts.resumed:
            parts.append(f"{counts.resumed:,} of them from before")
        if self.errors:
            again = " (put their rows into a file of their own to try them again)"
            parts.append(f'{self.errors:,} with an "error"{again if self.noun == "rows" else ""}')
        if counts.completion_tokens:
            parts.append(
                f"{counts.completion_tokens:,} tokens in {_seconds(self.seconds)}, "
                f"{self._rate:,.1f} tokens/s"
            )
        return " | ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The summary as --json prints it; the tokens and seconds are those of this run."""
        counts = self.counts
        return {
            "output": str(self.output),
            "rows": counts.rows,
            "resumed": counts.resumed,
            "errors": self.errors,
            "usage": {
                "prompt_tokens": counts.prompt_tokens,
                "cached_tokens": counts.cached_tokens,
                "completion_tokens": counts.completion_tokens,
            },
            "seconds": self.seconds,
            "tokens_per_second": self._rate,
        }

    @property
    def _rate(self) -> float:
        return self.counts.completion_tokens / self.seconds if self.seconds > 0 else 0.0


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


@contextlib.contextmanager
def open_answerer(
    model: str | None, loading: dict[str, Any], parallel: int, ray: str | None
) -> Iterator[Answerer]:
    """What answers the rows: the model in this process, or the machines of a Ray cluster.

    Raises click.UsageError for a cluster without a model's name.
    """
    if ray is None:
        from edgesppo.batches.local import LocalModel

        found = choose_model(model)
        with open_model(found, {**loading, "n_seqs": parallel}) as loaded:
            yield LocalModel(loaded, parallel)
        return
    from edgesppo.batches.cluster import Cluster

    if model is None:
        raise click.UsageError(
            "--ray needs MODEL: a name, or a path, under which all machines have it"
        )
    name = known_everywhere(model)
    with Cluster(ray, name, parallel=parallel, loading=loading, say=say) as cluster:
        yield cluster


def answer_rows(job: Batch, file: ResultFile, noun: str = "rows") -> Summary:
    """Answer the rows that are not in the file yet, with a progress line on standard error.

    Ctrl-C, a full disk and a failing model end it with a message that says what is kept and how to
    go on.
    """
    errors = sum(found.error is not None for found in file.results())
    before = len(file.done)
    if before:
        say(f"{before:,} of {job.counts.rows:,} {noun} are in {file.path} already")
    started = time.perf_counter()
    meter = RowProgress(job.counts.rows, before, noun)
    running = job.run(lambda c: meter.update(c.done, c.completion_tokens, c.errors), file)
    try:
        with contextlib.closing(running), contextlib.closing(meter):
            for result in running:
                errors += result.error is not None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on("stopped", job, file, noun)) from None
    except Terminated:
        say(f"edgesppo: {_how_to_go_on('told to end', job, file, noun)}", matters=True)
        raise
    except (OutputError, NativeError, OutOfMemory) as error:
        error.args = (_how_to_go_on(str(error), job, file, noun),)
        raise
    return Summary(file.path, job.counts, errors, time.perf_counter() - started, noun)


def _how_to_go_on(what: str, job: Batch, file: ResultFile, noun: str) -> str:
    return (
        f"{what}; {len(file.done):,} of {job.counts.rows:,} {noun} are in {file.path}, and the "
        "same command goes on"
    )
