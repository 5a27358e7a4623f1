"""`batch()`: answer many prompts, many at once, into a file that can be continued."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from typing_extensions import Unpack

from edgesppo.api import load
from edgesppo.batches.head import Head
from edgesppo.batches.input import InputRows, open_rows
from edgesppo.batches.local import LocalModel
from edgesppo.batches.output import ResultFile, check_place
from edgesppo.batches.recipe import Recipe, take_part
from edgesppo.batches.request import read_labels
from edgesppo.batches.result import BatchResult
from edgesppo.batches.work import Answerer, Counts, Report, Work
from edgesppo.chat import structured
from edgesppo.chat.structured import Schema
from edgesppo.errors import UsageError
from edgesppo.loaded_model import LoadedModel
from edgesppo.planning.run_config import DEFAULT_PARALLEL, MOST_SEQS
from edgesppo.sampling import options
from edgesppo.sampling.options import SamplingOptions
from edgesppo.store.locate import Found, find
from edgesppo.system import validate
from edgesppo.system.fs import is_same_file

_OTHERS = ("parallel", "n", "seeds", "system", "schema", "part", "on_progress")


def batch(
    model: str | Path | Found | LoadedModel,
    rows: str | Path | Iterable[Any] | BinaryIO,
    out: str | Path | None = None,
    *,
    parallel: int | None = None,
    n: int = 1,
    seeds: Sequence[int] | None = None,
    system: str | None = None,
    schema: Schema | None = None,
    part: tuple[int, int] | None = None,
    on_progress: Callable[[Counts], None] | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Generator[BatchResult, None, None]:
    """Answer many prompts, several at once; returns an iterator of the results, as they are done.

        for result in edgesppo.batch("sppo-iter3", "questions.jsonl", "answers.jsonl"):
            print(result.row, result.error or result.text)

    A row is a dict, or a line of JSON in a file: {"prompt": "..."} or {"messages": [...]}, with
    `custom_id`, `system`, `schema`, `tools`, `n`, `seeds` and any sampling parameter; or OpenAI's
    batch form, {"custom_id": "...", "body": {"messages": [...], ...}}. What a row says counts for
    that row. A row that cannot be answered has a result with an `error`, and the others go on.

    With `out`, each result is also appended to that file, as one line of JSON. After a crash or an
    interruption the same call goes on: it first returns the results that are in the file, then
    the others. Each row is in the file exactly once.

    The arguments are checked at once, as far as that needs no model; a model is loaded, and `out`
    opened, at the first `next()`.

    Args:
        model: A loaded model, or what `load` takes. A model that is loaded here is closed at the
            end, or when the iterator is closed.
        rows: A file of JSON Lines, or with a JSON list; or the rows themselves.
        out: The file to write. `out` + ".journal" is written beside it.
        parallel: How many answers to generate at once: by default 4, or as many as a loaded model
            was loaded for (`n_seqs`). They share the context.
        n: The number of answers to each row. With a `seed`, their seeds are that one and those
            after it.
        seeds: The seeds of the answers to each row, in place of `n`.
        system: The system text.
        schema: What every answer must follow: a JSON Schema or a type, as in `Chat.ask`.
        part: (i, n) answers only the i-th of n equal parts of the rows, consecutive ones.
        on_progress: Called with the counts so far after each step.
        **sampling: SamplingParams that override the model's defaults.

    Raises:
        UsageError: An argument is invalid, the rows cannot be read, or `out` belongs to other rows,
            another model, or other options.
        OutputError: `out` cannot be written, or another process is writing it.
        EdgesppoError: What `load` raises; or the model failed, which ends the batch.
    """
    options.check_names(sampling, _OTHERS)
    format_ = None if schema is None else structured.answer_format(schema)
    recipe = Recipe(sampling, n=n, seeds=seeds, system=system, answer_format=format_, part=part)
    results = _results(model, rows, out, recipe, parallel, on_progress)
    next(results)  # checks the rest of the arguments; what was opened for it is closed with it
    return results


def _results(
    model: str | Path | Found | LoadedModel,
    rows: str | Path | Iterable[Any] | BinaryIO,
    out: str | Path | None,
    recipe: Recipe,
    parallel: int | None,
    on_progress: Callable[[Counts], None] | None,
) -> Generator[Any, None, None]:
    """None once the arguments are found valid, as far as this is known without loading a model.

    Then the results.
    """
    validate.callback("on_progress", on_progress)
    if parallel is not None:
        parallel = validate.integer("parallel", parallel, 1, MOST_SEQS)
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(open_rows(rows))
        take_part(found.places, recipe.part)
        path = None if out is None else Path(out).expanduser()
        if path is not None:
            check_place(path)
        if isinstance(model, LoadedModel):
            LocalModel(model, parallel)
        elif not isinstance(model, Found):
            model = find(model)
        yield None
        if not isinstance(model, LoadedModel):
            model = stack.enter_context(load(model, n_seqs=parallel or DEFAULT_PARALLEL))
        job = Batch(LocalModel(model, parallel), found, recipe)
        if path is None:
            yield from job.run(on_progress)
            return
        file = stack.enter_context(job.open_output(path))
        yield from file.results()
        yield from job.run(on_progress, file)


class Batch:
    """The rows of one input, to be answered according to a recipe."""

    def __init__(self, answerer: Answerer, rows: InputRows, recipe: Recipe) -> None:
        self._answerer = answerer
        self.rows = rows
        self.recipe = recipe
        self.places = take_part(rows.places, recipe.part)  # of the rows that are to be answered
        self._lines = self.places
        if recipe.apart:
            numbers = range(len(recipe.seeds or range(recipe.n)))
            self._lines = [replace(place, answer=n) for place in self.places for n in numbers]
        self.counts = Counts(len(self._lines))

    def open_output(self, path: Path) -> ResultFile:
        """The output file; takes up what an earlier run of the same batch wrote.

        Raises what `ResultFile` raises, and UsageError if it is the input itself.
        """
        path = Path(os.path.realpath(path))
        rows, model = self.rows, self._answerer
        if is_same_file(path, Path(rows.name)):
            raise UsageError(f"{path} is the input itself; use another output")
        return ResultFile(
            path,
            Head(
                {"name": rows.name, "sha256": rows.sha256, "rows": len(rows.places)},
                {"name": model.name, "fingerprint": model.fingerprint},
                self.recipe.describe(self.recipe.params(model.defaults)),
            ),
        )

    def run(
        self, on_progress: Report | None = None, file: ResultFile | None = None
    ) -> Generator[BatchResult, None, None]:
        """Answer the rows that are not in the file yet; a result is in it when it is returned."""
        done = set() if file is None else file.done
        counts = self.counts
        counts.done = counts.resumed = len(done)
        places = [place for place in self._lines if place.key not in done]
        work = Work(self.rows, read_labels(self.rows, self.places), self.recipe)
        answers = self._answerer.answer(work, places, counts, on_progress)
        with contextlib.closing(answers) as results:
            for result in results:
                if file is not None:
                    file.append(result)
                yield result
