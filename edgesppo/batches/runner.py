"""Answer the rows of a batch, many at once, in an order that shares prefixes.

Rows are started in the order of their prompts, so that neighbours share the most; what they share
the engine computes once. As many answers run as it has sequences and the context is expected to
hold.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgesppo.batches import result
from edgesppo.batches.input import ALL
from edgesppo.batches.request import BadRow, decode, parse
from edgesppo.chat import template
from edgesppo.chat.generation import Generation
from edgesppo.errors import Closed, ContextOverflow, EdgesppoError, NativeError, OutOfMemory
from edgesppo.interior import interior

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from edgesppo.batches.input import Place
    from edgesppo.batches.request import Label, RowRequest
    from edgesppo.batches.result import BatchResult
    from edgesppo.batches.work import Counts, Report, Work
    from edgesppo.chat.result import Result
    from edgesppo.loaded_model import LoadedModel
    from edgesppo.sampling.params import SamplingParams

# Until answers have ended, one is expected to have so many tokens; later, what they had on average
# and a quarter more.
_FIRST_GUESS = 256
_MARGIN = 1.25
# What is wrong with more than one row, and ends the batch.
_FATAL = (Closed, NativeError, OutOfMemory)


@dataclass(eq=False)
class _Row:
    """A row that is being answered: its results so far, by the number of the answer."""

    place: Place
    label: Label
    request: RowRequest
    prompt: list[int]
    results: dict[int, Result] = field(default_factory=dict)


@dataclass(eq=False)
class _Answer:
    """One answer to a row, under way."""

    row: _Row
    number: int
    generation: Generation
    expected: int  # tokens


class RowRunner:
    """Answers rows with one loaded model, `parallel` answers at once.

    `report` is called after each step.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        work: Work,
        counts: Counts,
        *,
        parallel: int,
        report: Report | None = None,
    ) -> None:
        self._loaded = loaded
        self._engine = interior(loaded).engine
        self._work = work
        self._recipe = work.recipe
        self._params = work.recipe.params(interior(loaded).defaults)
        self._waiting: collections.deque[Place] = collections.deque()
        self._counts = counts
        self._parallel = parallel
        self._report = report or (lambda _: None)
        self._running: list[_Answer] = []
        self._to_start: collections.deque[tuple[_Row, int, SamplingParams]] = collections.deque()
        self._ended = 0  # answers
        self._ended_tokens = 0
        self._finished_tokens = (0, 0)  # of the prompts of answers that ended, and cached ones

    def add(self, places: Iterable[Place]) -> None:
        """Add rows, which are started in the order of their prompts."""
        self._waiting.extend(self._work.in_order(places))

    def run(self) -> Generator[BatchResult, None, None]:
        """The result of each row, as it is done. Leaving the iterator stops all answers."""
        try:
            while self._waiting or self._to_start or self._running:
                yield from self._start()
                if self._running:
                    self._engine.step(for_throughput=True)
                    self._engine.tell()
                    yield from self._collect()
                self._count()
        finally:
            for answer in self._running:
                answer.generation.cancel()

    def _start(self) -> Iterator[BatchResult]:
        """Start answers while there is room; yields the rows that cannot be answered."""
        while True:
            if not self._to_start:
                if not self._waiting or len(self._running) >= self._parallel:
                    return
                place = self._waiting.popleft()
                data = self._work.rows.read(place)
                try:
                    row = self._parse(place, data)
                except _FATAL:
                    raise
                except EdgesppoError as error:
                    yield self._refused(place, error)
                    continue
                self._to_start.extend((row, n, p) for n, p in enumerate(row.request.params))
            row, number, params = self._to_start[0]
            if not self._may_start(row, params):
                return
            self._to_start.popleft()
            try:
                self._submit(row, number, params)
            except _FATAL:
                raise
            except EdgesppoError as error:
                self._drop(row)
                yield self._refused(row.place, error)

    def _parse(self, place: Place, data: bytes) -> _Row:
        label = self._work.labels[place.row]
        if label.fault is not None:
            raise label.fault
        request = parse(decode(data), self._recipe, self._params)
        if place.answer != ALL:
            request = replace(request, params=[request.params[place.answer]])
        prompt = self._encode(request)
        if len(prompt) >= self._engine.n_ctx:
            raise self._engine.overflow(len(prompt))
        return _Row(place, label, request, prompt)

    def _encode(self, request: RowRequest) -> list[int]:
        model = interior(self._loaded).engine.model
        texts = (message.content for message in request.messages)
        fewest = template.fewest_tokens(model, texts)
        if fewest >= self._engine.n_ctx:  # not worth tokenising
            raise self._engine.overflow(fewest, at_least=True)
        return self._recipe.prompt_ids(model, request.messages)

    def _may_start(self, row: _Row, params: SamplingParams) -> bool:
        """Whether there is a sequence and room for it."""
        if not self._running:
            return True
        if len(self._running) >= self._parallel:
            return False
        cached = self._engine.count_cached(row.prompt)
        taken = sum(
            answer.generation.n_cells + max(0, answer.expected - answer.generation.n_generated)
            for answer in self._running
        )
        return taken + len(row.prompt) - cached + self._expected(params) <= self._engine.n_ctx

    def _expected(self, params: SamplingParams) -> int:
        """How many tokens an answer is expected to have."""
        guess = self._ended_tokens / self._ended * _MARGIN if self._ended else _FIRST_GUESS
        return min(params.max_tokens, int(guess) + 1)

    def _submit(self, row: _Row, number: int, params: SamplingParams) -> None:
        grammar = row.request.grammar
        generation = Generation(self._engine, row.prompt, params, grammar=grammar)
        self._running.append(_Answer(row, number, generation, self._expected(params)))

    def _collect(self) -> Iterator[BatchResult]:
        """Take in what the answers under way have generated; yields the rows that are done."""
        for answer in list(self._running):
            if answer not in self._running:
                continue
            row = answer.row
            try:
                if not answer.generation.poll():
                    continue
            except _FATAL:
                raise
            except EdgesppoError as error:
                self._drop(row)
                yield self._refused(row.place, error)
                continue
            self._running.remove(answer)
            found = row.results[answer.number] = answer.generation.result()
            self._ended += 1
            self._ended_tokens += found.usage.completion_tokens
            prompt, cached = self._finished_tokens
            self._finished_tokens = (
                prompt + found.usage.prompt_tokens,
                cached + found.usage.cached_tokens,
            )
            if len(row.results) == len(row.request.params):
                yield self._answered(row)

    def _answered(self, row: _Row) -> BatchResult:
        self._counts.done += 1
        results = [row.results[n] for n in range(len(row.results))]
        return result.answered(row.place.key, row.label, results, self._loaded, row.request)

    def _refused(self, place: Place, error: EdgesppoError) -> BatchResult:
        self._counts.done += 1
        self._counts.errors += 1
        return result.refused(place.key, self._work.labels[place.row], str(error), _code(error))

    def _drop(self, row: _Row) -> None:
        """Stop all answers to a row."""
        for answer in [answer for answer in self._running if answer.row is row]:
            answer.generation.cancel()
            self._running.remove(answer)
        while self._to_start and self._to_start[0][0] is row:
            self._to_start.popleft()

    def _count(self) -> None:
        """Bring the counts up to date, and report them."""
        counts = self._counts
        counts.running = len(self._running)
        counts.prompt_tokens, counts.cached_tokens = self._finished_tokens
        counts.completion_tokens = self._ended_tokens + sum(
            answer.generation.n_generated for answer in self._running
        )
        self._report(counts)


def _code(error: EdgesppoError) -> str:
    if isinstance(error, BadRow):
        return error.code
    return "context_length_exceeded" if isinstance(error, ContextOverflow) else "invalid_request"
