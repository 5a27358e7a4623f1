"""Dialogues that a model makes by answering the shipped questions: what it is calibrated on.

Each is recorded in a file beside the output as soon as it is complete, so that a run that was
killed goes on with the next question. The seed is the question's number, so another run asks the
same.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from edgesppo import api
from edgesppo.chat.messages import Message
from edgesppo.evaluate.candidate import model_hash
from edgesppo.evaluate.corpus import corpus_of
from edgesppo.evaluate.prompts import PROMPTS
from edgesppo.evaluate.record import Record
from edgesppo.evaluate.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.evaluate.candidate import Candidate, RunOptions
    from edgesppo.evaluate.corpus import Corpus

DEFAULT_DIALOGUES = 64
_ANSWER = 200  # tokens at most
_CONTEXT = 1024


class SelfDialogues:
    """The dialogues of one model, recorded in a file beside `output`."""

    def __init__(self, candidate: Candidate, output: Path) -> None:
        self._candidate = candidate
        self._record = Record(_path(output), {"model": model_hash(candidate)})

    def generate(
        self, n: int, run: RunOptions, on_progress: Callable[[int, int], None]
    ) -> list[list[Message]]:
        """The first `n` dialogues; those that are recorded are not generated again."""
        found = self._recorded()[:n]
        on_progress(len(found), n)
        if len(found) == n:
            return found
        prompts = list(itertools.islice(itertools.cycle(PROMPTS), n))
        with api.load(
            self._candidate.path,
            n_ctx=min(_CONTEXT, self._candidate.trained_context),
            n_threads=run.n_threads,
            gpu=run.gpu,
            drafts=False,
        ) as model:
            for seed in range(len(found), n):
                answer = model.ask(prompts[seed], seed=seed, max_tokens=_ANSWER)
                found.append([Message("user", prompts[seed]), Message("assistant", answer)])
                self._record.write(map(_event, found))
                on_progress(len(found), n)
        return found

    def corpus(
        self,
        source: Source | None,
        n: int,
        run: RunOptions,
        report: Callable[[str, int, int], None],
    ) -> Corpus:
        """The samples of what is given; without that, of its own `n`. Raises UsageError."""
        if source is None:
            stage = f"{self._candidate.name} answers questions"
            own = self.generate(n, run, lambda done, total: report(stage, done, total))
            source = Source("its own dialogues", None, tuple(own))
        with contextlib.closing(self._candidate.vocabulary()) as model:
            return corpus_of(model, source)

    def _recorded(self) -> list[list[Message]]:
        return [
            [Message("user", line["question"]), Message("assistant", line["answer"])]
            for line in self._record.read()
        ]


def remove_dialogues(output: Path) -> None:
    """Remove the dialogues that are recorded beside `output`, if there are any."""
    _path(output).unlink(missing_ok=True)


def _path(output: Path) -> Path:
    return output.with_name(f".{output.name}.edgesppo-dialogues")


def _event(dialogue: list[Message]) -> dict[str, str]:
    question, answer = dialogue
    return {"question": question.content, "answer": answer.content}
