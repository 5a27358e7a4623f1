"""`BatchResult`: what became of one row, as a line of the output has it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgesppo.batches import openai
from edgesppo.batches.input import Key
from edgesppo.batches.request import Label, RowRequest
from edgesppo.chat.messages import shortened
from edgesppo.chat.result import Result
from edgesppo.chat.structured import AnswerFormat
from edgesppo.errors import IncompleteAnswer
from edgesppo.interior import interior
from edgesppo.llama.model import Model
from edgesppo.loaded_model import LoadedModel
from edgesppo.openai_api.choices import calls_in, finish_reason

_BAD_REQUEST = 400
_PARTS = ("text", "finish_reason", "seed", "tool_calls")  # of an answer


class BatchResult(Mapping[str, Any]):
    """What became of one row; a mapping of what its line of the output holds.

    Attributes:
        row: The number of the row, from 1 on: that of its line in the input.
    """

    def __init__(self, key: Key, line: Mapping[str, Any]) -> None:
        self.key = key
        self.row = key[0]
        self._line = line

    @property
    def custom_id(self) -> str | None:
        """The row's own name, if it has one."""
        found = self._line.get("custom_id")
        return found if isinstance(found, str) else None

    @property
    def error(self) -> str | None:
        """Why the row was not answered; None if it was."""
        found = self._line.get("error")
        return None if found is None else str(found["message"])

    @property
    def texts(self) -> list[str]:
        """The texts of the answers; none if there is an error."""
        return [str(answer["text"]) for answer in self.answers]

    @property
    def text(self) -> str:
        """The text of the first answer; empty if there is an error."""
        return next(iter(self.texts), "")

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Text, finish_reason and seed of each answer, and its tool_calls if it has any.

        An empty list if there is an error.
        """
        if self.error is not None:
            return []
        if "response" not in self._line:
            return [_named_parts(answer) for answer in self._line.get("answers", [self._line])]
        choices = self._line["response"]["body"]["choices"]
        return [
            _named_parts(
                {**choice, **choice["message"], "text": choice["message"]["content"] or ""}
            )
            for choice in choices
        ]

    @property
    def completion_tokens(self) -> int:
        """The tokens of all answers."""
        return int(self.usage.get("completion_tokens", 0))

    @property
    def usage(self) -> dict[str, Any]:
        """The token counts, in the row's own form; empty if there is an error."""
        body = self._line["response"]["body"] if "response" in self._line else self._line
        found: dict[str, Any] = body.get("usage", {})
        return found

    def __getitem__(self, key: str) -> Any:
        return self._line[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._line)

    def __len__(self) -> int:
        return len(self._line)

    def __repr__(self) -> str:
        what = shortened(self.text) if self.error is None else f"error: {shortened(self.error)}"
        name = "" if self.custom_id is None else f" {self.custom_id!r}"
        return f"<BatchResult {self.row}{name} {what}>"


def _named_parts(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in _PARTS if name in answer}


def answered(
    key: Key, label: Label, results: Sequence[Result], loaded: LoadedModel, request: RowRequest
) -> BatchResult:
    """The result of a row that was answered, in the row's own form."""
    if not label.is_openai:
        return BatchResult(key, _plain(key[0], label.custom_id, results, loaded, request))
    id_ = _id(key[0], label)
    tools = () if request.tool_use is None else request.tool_use.names
    body = openai.completion(id_, loaded.name, results, tools=tools)
    response = {"status_code": 200, "request_id": f"req_{id_}", "body": body}
    return BatchResult(
        key,
        {
            "id": f"batch_req_{id_}",
            "custom_id": label.custom_id,
            "response": response,
            "error": None,
        },
    )


def refused(key: Key, label: Label, message: str, code: str) -> BatchResult:
    """The result of a row that was not answered, in the row's own form."""
    row = key[0]
    error = {"code": code, "message": message}
    if not label.is_openai:
        return BatchResult(key, {"row": row, **_named(label.custom_id), "error": error})
    if label.fault is not None:  # its custom_id, if there is one, need not say which row it is
        error["message"] = f"row {row}: {message}"
    id_ = _id(row, label)
    response = openai.failure(error["message"], code, _BAD_REQUEST)
    response["request_id"] = f"req_{id_}"
    return BatchResult(
        key,
        {
            "id": f"batch_req_{id_}",
            "custom_id": label.custom_id,
            "response": response,
            "error": error,
        },
    )


def _id(row: int, label: Label) -> str:
    return hashlib.sha256(
        f"{row} {label.custom_id} {label.order.hex()}".encode("utf-8", "replace")
    ).hexdigest()[:24]


def _named(custom_id: str | None) -> dict[str, str]:
    return {} if custom_id is None else {"custom_id": custom_id}


def _plain(
    row: int,
    custom_id: str | None,
    results: Sequence[Result],
    loaded: LoadedModel,
    request: RowRequest,
) -> dict[str, Any]:
    """The line of a plain row: the first answer, and with several of them `answers`."""
    answers = [_answer(result, request, interior(loaded).engine.model) for result in results]
    several = {"answers": answers} if len(answers) > 1 else {}
    usage = dataclasses.asdict(results[0].usage)
    usage["completion_tokens"] = sum(result.usage.completion_tokens for result in results)
    return {
        "row": row,
        **_named(custom_id),
        **answers[0],
        **several,
        "usage": usage,
        "error": None,
    }


def _answer(result: Result, request: RowRequest, model: Model) -> dict[str, Any]:
    calls = [] if request.tool_use is None else calls_in(result.text, request.tool_use.names)
    found: dict[str, Any] = {
        "text": "" if calls else result.text,
        "finish_reason": finish_reason(result, calls),
        "seed": result.seed,
    }
    if calls:
        found["tool_calls"] = calls
    if request.answer_format is not None:
        found["value"] = _value(result, request.answer_format)
    if n_control := sum(
        map(model.is_control, result.ids)
    ):  # they have no text, so nobody would see them
        found["control_tokens"] = n_control
    if result.logprobs:
        found["logprobs"] = [entry.to_dict() for entry in result.logprobs]
    return found


def _value(result: Result, answer_format: AnswerFormat) -> Any:
    """The parsed answer; None if it was cut off before its JSON was complete."""
    try:
        return answer_format.value(result)
    except IncompleteAnswer:
        return None
