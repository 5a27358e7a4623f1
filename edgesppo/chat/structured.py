"""Answers that follow a schema: from schema to grammar, and from the answer's text to a value.

pydantic is not imported here: its model classes have the methods that are needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from edgesppo import schema
from edgesppo.errors import IncompleteAnswer, UsageError
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.chat.result import Result
    from edgesppo.sampling.params import SamplingParams


# The last character of a JSON text that cannot go on.
_LAST = ("}", "]", '"')
_SHORTER = (
    "bound its texts and lists in the schema (maxLength, maxItems), or allow more tokens"
    " (max_tokens, --max-tokens; n_ctx, --n-ctx)"
)
_ACCEPTED = "a JSON Schema (a dict, True or False), a pydantic model class or 'json_object'"


class PydanticClass(Protocol):
    """What is needed of a class that answers become instances of; pydantic's models have it."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The JSON Schema of the class."""

    @classmethod
    def model_validate_json(cls, *args: Any, **kwargs: Any) -> Any:
        """An instance, from the text of its JSON."""


JsonSchema: TypeAlias = Mapping[str, Any] | bool | Literal["json_object"]
Schema: TypeAlias = JsonSchema | type[PydanticClass]


@dataclass(frozen=True)
class AnswerFormat:
    """The GBNF `grammar` that an answer must follow, and the function that parses its text."""

    grammar: str
    parse: Callable[[str], Any]

    def check(self, params: SamplingParams) -> None:
        """Raise UsageError for parameters that could end the answer before it is complete."""
        for name in ("stop", "stop_tokens"):
            if getattr(params, name):
                raise UsageError(
                    f"{name} is {getattr(params, name)!r}, but the schema decides where the "
                    f"answer ends; leave out {name} or the schema"
                )

    def value(self, result: Result) -> Any:
        """The value of an answer. Raises IncompleteAnswer if the answer was cut."""
        if result.finish_reason == "length" and result.text.endswith(_LAST):
            try:  # the JSON may be complete, with no token left for the end token
                return self.parse(result.text)
            except (ValueError, RecursionError):
                pass
        if result.finish_reason != "stop":
            n = result.usage.completion_tokens
            cut = result.finish_reason == "length"
            advice = f"; {_SHORTER}" if cut else ""
            raise IncompleteAnswer(
                f"the answer ended before its JSON was complete ({result.finish_reason} after {n} "
                f"tokens){advice}",
                text=result.text,
                finish_reason=result.finish_reason,
            )
        try:
            return self.parse(result.text)
        except RecursionError:
            raise IncompleteAnswer(
                "the answer's JSON is nested too deep to be parsed; use a schema that limits it",
                text=result.text,
                finish_reason=result.finish_reason,
            ) from None
        except ValueError as error:
            raise IncompleteAnswer(
                f"the answer does not match its schema ({' '.join(str(error).split())}); ask again",
                text=result.text,
                finish_reason=result.finish_reason,
            ) from None


def answer_format(asked: Any) -> AnswerFormat:
    """The format for a JSON Schema (parsed) or a pydantic model class.

    "json_object", also as {"type": "json_object"}, stands for any JSON object. An AnswerFormat is
    returned as it is. Raises UsageError for a schema that cannot be followed, and for what is no
    schema, saying what is accepted.
    """
    if isinstance(asked, AnswerFormat):
        return asked
    if isinstance(asked, type) and hasattr(asked, "model_json_schema"):
        model: Any = asked
        return AnswerFormat(schema.grammar(_schema_of(model)), model.model_validate_json)
    if isinstance(asked, Mapping):
        asked = dict(asked)
    elif not isinstance(asked, bool) and asked != "json_object":
        raise UsageError(f"schema is {_found(asked)}")
    if asked in ("json_object", {"type": "json_object"}):
        asked = {"type": "object"}
    return AnswerFormat(schema.grammar(asked), json.loads)


def _schema_of(model: Any) -> Any:
    try:
        return model.model_json_schema()
    except Exception as error:  # pydantic's own kinds, which are not imported here
        text = " ".join(str(error).split())
        raise UsageError(
            f"schema is the class {model.__name__}, which has no JSON Schema ({text[:200]}); "
            "change its fields, or pass a JSON Schema"
        ) from None


def _found(asked: Any) -> str:
    """What was given instead of a schema, what is accepted, and what to do where that is plain."""
    kind = asked if isinstance(asked, type) else type(asked)
    what, advice = validate.quoted(asked), ""
    if isinstance(asked, str):
        if asked.lstrip()[:1] in ("{", "["):
            advice = "; parse the text first, with json.loads()"
    elif isinstance(asked, type):
        what = f"the class {kind.__name__}"
        advice = "; derive it from pydantic.BaseModel, or pass its JSON Schema"
    elif hasattr(kind, "model_json_schema"):
        what = f"an instance of {kind.__name__}"
        advice = f"; pass the class {kind.__name__} itself"
    return f"{what}, expected {_ACCEPTED}{advice}"
