"""One row of the input -> what to generate for it."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgesppo.batches import openai
from edgesppo.batches.conversation import begins_with_system, conversation, row_tools
from edgesppo.batches.recipe import check_answers, checked_seeds
from edgesppo.chat import structured
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.sampling.options import NAMES
from edgesppo.sampling.params import biases_of_json
from edgesppo.system import validate
from edgesppo.system.suggest import did_you_mean
from edgesppo.system.text_input import MAX_BYTES, why_not_utf8

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.batches.input import InputRows, Place
    from edgesppo.batches.recipe import Recipe
    from edgesppo.chat.messages import Message
    from edgesppo.chat.structured import AnswerFormat
    from edgesppo.openai_api.tools import ToolUse
    from edgesppo.sampling.params import SamplingParams

_PLAIN_KEYS = (
    *("prompt", "messages", "system", "custom_id", "n", "seeds", "schema"),
    *("tools", "tool_choice", "parallel_tool_calls"),
)
# Prompts that begin alike, for so many characters, come one after the other.
_ALIKE = (64, 256, 1024)


class BadRow(EdgesppoError):
    """A row that cannot be answered; `code` is its kind, as in OpenAI's errors."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[BadRow], tuple[str, str]]:
        return type(self), (str(self), self.code)  # so that it can be sent to another machine


@dataclass(frozen=True)
class RowRequest:
    """What a row asks for: messages, and the sampling parameters of each answer to them.

    The answers follow a format, or may call tools, or neither.
    """

    messages: Sequence[Message]
    params: Sequence[SamplingParams]
    answer_format: AnswerFormat | None = None
    tool_use: ToolUse | None = None

    @property
    def grammar(self) -> str | None:
        """The GBNF that binds the answers."""
        bound = self.tool_use or self.answer_format
        return None if bound is None else bound.grammar


@dataclass(frozen=True)
class Label:
    """What is known of a row before its turn: its form and its custom_id.

    Rows whose prompts begin alike have an `order` that does. `fault` says why a row cannot be
    answered, if that is known already.
    """

    is_openai: bool = False
    custom_id: str | None = None
    order: bytes = b""
    fault: BadRow | None = None


def decode(data: bytes) -> dict[str, Any]:
    """The JSON object of a row; a text stands for {"prompt": text}. Raises BadRow."""
    if fault := why_not_utf8(data):
        raise BadRow(f"the row is not UTF-8 text: {fault}", "invalid_json")
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BadRow(
            f"the row is not JSON: {why}; expected one JSON object a line", "invalid_json"
        ) from None
    if isinstance(row, str):
        return {"prompt": row}
    if not isinstance(row, dict):
        shown = "null" if row is None else validate.quoted(row)
        raise BadRow(
            f"the row is {shown}, expected an object with 'prompt', 'messages', or "
            "'custom_id' and 'body'",
            "invalid_json",
        )
    return row


def check_form(rows: InputRows) -> None:
    """Raise UsageError for an input of another form: not one of its rows is what `decode` reads."""
    first = None
    for place in rows.places:
        if not place.is_too_long:
            try:
                decode(rows.read(place))
            except BadRow as fault:
                first = first or f"in row {place.row}, {fault}"
            else:
                return
    if first is not None:
        raise UsageError(f"{rows.name} has no row that can be read: {first}")


def _too_long(n_bytes: int) -> BadRow:
    """The error for a row that is not even read."""
    return BadRow(
        f"the row has {n_bytes:,} bytes, more than the {MAX_BYTES:,} that a row may have; no "
        "context holds that",
        "row_too_long",
    )


def read_labels(rows: InputRows, places: Sequence[Place]) -> dict[int, Label]:
    """What is known in advance of each row, by its number. Raises what `InputRows.read` raises."""
    labels: dict[int, Label] = {}
    used: dict[str, int] = {}  # custom_id -> the row that has it
    for place in places:
        try:
            if place.is_too_long:
                raise _too_long(place.n_bytes)
            found = _label(decode(rows.read(place)))
        except BadRow as fault:
            found = Label(fault=fault)
        if found.custom_id is not None:
            first = used.setdefault(found.custom_id, place.row)
            if first != place.row:
                found = replace(found, fault=_used(found.custom_id, first))
        labels[place.row] = found
    known = [label.is_openai for label in labels.values() if label.fault is None]
    if known and all(known):  # then so are the rows that cannot even be read
        return {row: replace(label, is_openai=True) for row, label in labels.items()}
    return labels


def _used(custom_id: str, row: int) -> BadRow:
    return BadRow(
        f"custom_id {validate.quoted(custom_id)} is that of row {row} already; give each row "
        "another",
        "duplicate_custom_id",
    )


def _label(row: Mapping[str, Any]) -> Label:
    """Never raises: what is wrong with a row's keys is found when it is its turn."""
    custom_id = row.get("custom_id")
    is_openai = "body" in row or "url" in row
    inner = row.get("body") if is_openai else row
    texts: list[str] = []
    if isinstance(inner, dict):
        if tools := inner.get("tools"):  # they are told first, at some length
            texts.append(str(zlib.crc32(str(tools).encode("utf-8", "replace"))))
        texts.append(str(inner.get("system") or ""))
        texts.append(str(inner.get("prompt") or inner.get("instruction") or ""))
        messages = inner.get("messages")
        if isinstance(messages, list):
            texts += [str(m.get("content")) for m in messages if isinstance(m, dict)]
    order = _order("\n".join(texts))
    return Label(is_openai, custom_id if isinstance(custom_id, str) else None, order)


def _order(prompt: str) -> bytes:
    """Hashes of a prompt's beginnings: short, as there is one for each row of a large input."""
    starts = (prompt[:n].encode("utf-8", "replace") for n in _ALIKE)
    return b"".join(hashlib.blake2b(start, digest_size=8).digest() for start in starts)


def parse(row: Mapping[str, Any], recipe: Recipe, params: SamplingParams) -> RowRequest:
    """What a row asks for; `params` are the batch's. Raises UsageError, with the key's name."""
    if "body" in row or "url" in row:
        _check_names(row, openai.ROW_KEYS)
        if not isinstance(row.get("custom_id"), str):
            raise UsageError(
                f"custom_id is {validate.quoted(row.get('custom_id'))}, expected a text that no "
                "other row has"
            )
        body = openai.check_row(row)
        _check_names(body, (*openai.BODY_KEYS, *NAMES))
        return _request(openai.options(body), recipe, params)
    options = {key: value for key, value in row.items() if value is not None}
    custom_id = options.get("custom_id", "")
    if not isinstance(custom_id, str):
        raise validate.invalid_value("custom_id", custom_id, "a text")
    if recipe.prompt_field is not None:
        if recipe.prompt_field not in options:
            raise UsageError(f"the row has no {recipe.prompt_field!r}")
        options = {"prompt": options[recipe.prompt_field]}
    else:
        _check_names(options, (*_PLAIN_KEYS, *NAMES))
    return _request(options, recipe, params)


def _check_names(row: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in row:
        if key not in known:
            raise UsageError(
                f"unknown key {validate.quoted(key)}{did_you_mean(str(key), known)}; expected "
                f"{_listed(known)}"
            )


def _listed(known: Sequence[str]) -> str:
    own = ", ".join(key for key in known if key not in NAMES)
    return f"{own}, or a sampling parameter" if set(NAMES) <= set(known) else own


def _request(options: dict[str, Any], recipe: Recipe, params: SamplingParams) -> RowRequest:
    sampling = {key: options[key] for key in NAMES if key in options}
    if "logit_bias" in sampling:
        sampling["logit_bias"] = biases_of_json(sampling["logit_bias"])
    params = params.replace(**sampling)
    use = row_tools(options)
    format_ = recipe.answer_format
    if "schema" in options:
        format_ = structured.json_answer_format(options["schema"])
    if format_ is not None:
        if use is not None:
            raise UsageError("a schema (response_format) and tools cannot be used together")
        format_.check(params)
    messages = _messages(options, recipe.system, use)
    return RowRequest(messages, _seeded(params, options, recipe), format_, use)


def _messages(options: Mapping[str, Any], system: str | None, use: ToolUse | None) -> list[Message]:
    """The messages of a row, with the system text first if there is one."""
    if ("prompt" in options) == ("messages" in options):
        both = "both 'prompt' and 'messages'" if "prompt" in options else "no 'prompt'"
        raise UsageError(f"the row has {both}, expected 'prompt' or 'messages'")
    given: Any = options.get("messages")
    own = options.get("system", system)
    if own is not None:
        validate.text("system", own)
    if "prompt" in options:
        validate.text("prompt", options["prompt"])
        if not options["prompt"].strip():
            raise UsageError("prompt has no text")
        given = [{"role": "user", "content": options["prompt"]}]
    elif begins_with_system(given):
        if "system" in options:
            raise UsageError("the row has two system texts, 'system' and message 1; give one")
        own = None  # the row's own system text replaces the batch's
    return conversation(given, own, use)


def _seeded(
    params: SamplingParams, options: Mapping[str, Any], recipe: Recipe
) -> list[SamplingParams]:
    """The parameters of each answer: the given seeds, or as many after the first, or random."""
    if "seeds" in options and ("n" in options or "seed" in options):
        raise UsageError("the row has 'seeds' beside 'n' or 'seed'; give the seeds alone")
    if "seeds" in options:
        return [params.replace(seed=seed) for seed in checked_seeds(options["seeds"])]
    if recipe.seeds is not None and "n" not in options and "seed" not in options:
        return [params.replace(seed=seed) for seed in recipe.seeds]
    n = check_answers(options.get("n", recipe.n))
    if params.seed is None:
        return [params.with_seed() for _ in range(n)]
    return [params.with_seed_after(i) for i in range(n)]
