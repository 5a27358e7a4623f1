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
from edgesppo.evaluate.corpus import dialogue_corpus, read_corpus
from edgesppo.evaluate.prompts import PROMPTS
from edgesppo.evaluate.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.evaluate.candidate import Candidate, RunOptions
    from edgesppo.evaluate.corpus import Corpus, Dialogues, Text

DEFAULT_DIALOGUES = 64
_ANSWER = 200  # tokens at most
_CONTEXT = 1024


class SelfDialogues:
    """The dialogues of one model, recorded in a file beside `output`."""

    def __init__(self, candidate: Candidate, output: Path, model_hash: str) -> None:
        self.path = output.with_name(f".{output.name}.edgesppo-dialogues")
        self._candidate = candidate
        self._record = Record(self.path, {"model": model_hash})

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
        text: Text | None,
        dialogues: Dialogues | None,
        n: int,
        run: RunOptions,
        report: Callable[[str, int, int], None],
        **limits: int | None,
    ) -> Corpus:
        """The text or the dialogues that are given; without both, its own `n`.

        `limits` are those of `read_corpus`, for what is given. Raises UsageError.
        """
        own = None
        if text is None and dialogues is None:
            stage = f"{self._candidate.name} answers questions"
            own = self.generate(n, run, lambda done, total: report(stage, done, total))
        with contextlib.closing(self._candidate.vocabulary()) as model:
            if own is not None:
                return dialogue_corpus(model, own, "its own dialogues")
            return read_corpus(model, text, dialogues, **limits)

    def _recorded(self) -> list[list[Message]]:
        return [
            [Message("user", line["question"]), Message("assistant", line["answer"])]
            for line in self._record.read()
        ]

    def remove(self) -> None:
        """Remove the record."""
        self.path.unlink(missing_ok=True)


def _event(dialogue: list[Message]) -> dict[str, str]:
    question, answer = dialogue
    return {"question": question.content, "answer": answer.content}
