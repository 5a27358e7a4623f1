"""Dialogues that a model makes by answering the shipped questions: what it is calibrated on.

Each is recorded in a file beside the output as soon as it is complete, so that a run that was
killed goes on with the next question. The seed is the question's number, so another run asks the
same.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from edgesppo import api
from edgesppo.chat.messages import Message
from edgesppo.evaluate.prompts import PROMPTS
from edgesppo.evaluate.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.evaluate.candidate import Candidate, RunOptions

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
