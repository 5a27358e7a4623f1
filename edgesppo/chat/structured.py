"""Answers that follow a schema: from schema to grammar, and from the answer's text to a value.

pydantic is imported for types that are not its own only: its model classes have the methods that
are needed.
"""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

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
_ACCEPTED = (
    "a JSON Schema (a dict, True or False), a type such as a pydantic model class or list[int], "
    "or 'json_object'"
)

JsonSchema: TypeAlias = Mapping[str, Any] | bool | Literal["json_object"]
# Types that are no classes to a type checker, such as `int | None` and `Literal["a", "b"]`.
TypeForm: TypeAlias = UnionType | typing._SpecialForm
Schema: TypeAlias = JsonSchema | type[Any] | TypeForm


@dataclass(frozen=True)
class AnswerFormat:
    """The GBNF `grammar` that an answer must follow, and the function that parses its text."""

    grammar: str
    parse: Callable[[str], Any]

    def check(self, params: SamplingParams) -> None:
        """Raise UsageError for parameters that could end the answer before it is complete."""
        require_own_end(params)

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


def require_own_end(params: SamplingParams) -> None:
    """Raise UsageError for parameters that could end an answer before its JSON is complete."""
    for name in ("stop", "stop_tokens"):
        if getattr(params, name):
            raise UsageError(
                f"{name} is {getattr(params, name)!r}, but the schema decides where the "
                f"answer ends; leave out {name} or the schema"
            )


def answer_format(asked: Any) -> AnswerFormat:
    """The format for a JSON Schema (parsed), or for a type: answers become values of it.

    "json_object", also as {"type": "json_object"}, stands for any JSON object. An AnswerFormat is
    returned as it is. Raises UsageError for a schema that cannot be followed, and for what is no
    schema, saying what is accepted.
    """
    if isinstance(asked, AnswerFormat):
        return asked
    if _is_type(asked):
        return _type_format(asked)
    if isinstance(asked, Mapping):
        asked = dict(asked)
    elif not isinstance(asked, bool) and asked != "json_object":
        raise UsageError(f"schema is {_found(asked)}")
    if asked in ("json_object", {"type": "json_object"}):
        asked = {"type": "object"}
    return AnswerFormat(schema.grammar(asked), json.loads)


def json_answer_format(asked: Any) -> AnswerFormat:
    """As `answer_format` for plain JSON, of which the last are kept: many requests share one."""
    return _json_answer_format(json.dumps(asked))


@functools.lru_cache(maxsize=64)
def _json_answer_format(text: str) -> AnswerFormat:
    return answer_format(json.loads(text))


def _is_type(asked: Any) -> bool:
    """Whether it is a class, or what the typing module makes of classes."""
    made_by = type(asked).__module__
    return (
        isinstance(asked, type)
        or typing.get_origin(asked) is not None
        or made_by in ("typing", "typing_extensions")
    )


def _type_format(asked: Any) -> AnswerFormat:
    try:
        if hasattr(asked, "model_json_schema"):
            found, parse = asked.model_json_schema(), asked.model_validate_json
        else:
            from pydantic import TypeAdapter

            adapter: TypeAdapter[Any] = TypeAdapter(asked)
            found, parse = adapter.json_schema(), adapter.validate_json
    except ImportError:
        raise UsageError(
            f"schema is {_name(asked)}, which pydantic makes a JSON Schema of, and it is not "
            "installed; install it (pip install pydantic), or pass a JSON Schema"
        ) from None
    except Exception as error:  # pydantic's own kinds, which are not imported here
        text = " ".join(str(error).split())
        raise UsageError(
            f"schema is {_name(asked)}, which has no JSON Schema ({text[:200]}); "
            "change its fields, or pass a JSON Schema"
        ) from None
    return AnswerFormat(schema.grammar(found), parse)


def _name(asked: Any) -> str:
    if isinstance(asked, type) and typing.get_origin(asked) is None:
        return f"the class {asked.__name__}"
    return f"the type {asked}"


def _found(asked: Any) -> str:
    """What was given instead of a schema, what is accepted, and what to do where that is plain."""
    kind = type(asked)
    what, advice = validate.quoted(asked), ""
    if isinstance(asked, str):
        if asked.lstrip()[:1] in ("{", "["):
            advice = "; parse the text first, with json.loads()"
    elif hasattr(kind, "model_json_schema"):
        what = f"an instance of {kind.__name__}"
        advice = f"; pass the class {kind.__name__} itself"
    return f"{what}, expected {_ACCEPTED}{advice}"
