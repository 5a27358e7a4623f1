"""Owns answers that follow a schema: what may be asked for, and the value that an answer is.

Knows schemas and text; knows nothing of models. pydantic is never imported here: a class of it
brings what is needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo import schema
from edgesppo.errors import IncompleteAnswer, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.chat.generation import Result
    from edgesppo.sampling.params import SamplingParams


# What ends a JSON text that nothing can prolong.
_LAST = ("}", "]", '"')


@dataclass(frozen=True)
class Wanted:
    """What an answer is bound to (`grammar`, GBNF), and how its text becomes a value."""

    grammar: str
    parse: Callable[[str], Any]

    def check(self, params: SamplingParams) -> None:
        """UsageError for parameters that would end an answer before it is whole."""
        for name in ("stop", "stop_tokens"):
            if getattr(params, name):
                raise UsageError(
                    f"{name} is {getattr(params, name)!r} beside a schema, which says itself "
                    "where an answer ends; leave one of them out"
                )

    def value(self, result: Result) -> Any:
        """What a finished answer says. Raises IncompleteAnswer for one that was cut."""
        if result.finish_reason == "length" and result.text.endswith(_LAST):
            try:  # whole already, with no token left to say so
                return self.parse(result.text)
            except (ValueError, RecursionError):
                pass
        if result.finish_reason != "stop":
            n = result.usage.completion_tokens
            cut = result.finish_reason == "length"
            more = "; allow more max_tokens or a larger n_ctx, or ask for less" if cut else ""
            raise IncompleteAnswer(
                f"the answer ended before its JSON was complete ({result.finish_reason} after {n} "
                f"tokens){more}",
                text=result.text,
                finish_reason=result.finish_reason,
            )
        try:
            return self.parse(result.text)
        except RecursionError:
            raise IncompleteAnswer(
                "the answer's JSON is nested too deep to be read; use a schema that bounds it",
                text=result.text,
                finish_reason=result.finish_reason,
            ) from None
        except ValueError as error:
            raise IncompleteAnswer(
                f"the answer does not fit its schema ({' '.join(str(error).split())}); ask again",
                text=result.text,
                finish_reason=result.finish_reason,
            ) from None


def wanted(asked: Any) -> Wanted:
    """From a JSON Schema, as Python's json gives it, or a pydantic model class. UsageError.

    "json_object", also as {"type": "json_object"}, is any JSON object.
    """
    if isinstance(asked, Wanted):
        return asked
    if asked in ("json_object", {"type": "json_object"}):
        asked = {"type": "object"}
    if isinstance(asked, type) and hasattr(asked, "model_json_schema"):
        model: Any = asked
        return Wanted(schema.grammar(model.model_json_schema()), model.model_validate_json)
    return Wanted(schema.grammar(asked), json.loads)
