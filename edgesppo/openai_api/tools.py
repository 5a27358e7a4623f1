"""Tools for a model that was not trained for them: told in the system text, bound by a grammar.

A call is the JSON `{"name": ..., "arguments": {...}}`. Its grammar comes from the tools' own
schemas, so the name exists and the arguments are valid. Where the model may choose, an answer that
begins with `{` is a call, and any other is text. Several calls, for who asks for them with
`parallel_tool_calls`, are one a line.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo import schema
from edgesppo.errors import UsageError
from edgesppo.openai_api.errors import BadField

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*')
_MOST_CALLS = 8  # in one answer
_MOST_WORK = 4  # for all schemas together: so many times that for one
_PLACE = "/properties/arguments"  # of a function's parameters, in the schema of a call
_TEXT = "[^{ \\t\\n] [^\\x00]*"
_MAY, _MUST = (
    "You may call a function. To call one, answer with nothing but",
    "Call a function. Answer with nothing but",
)
_SEVERAL = "To call several, write such a line for each.\n"
_INTRODUCTION = """{order} this JSON, in one line:
{{"name": "NAME", "arguments": {{...}}}}
{several}The functions, with the JSON Schemas of their arguments:
{functions}"""


@dataclass(frozen=True)
class Function:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the model is told of it."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Named:
    """The choice of one function, by its name."""

    name: str


@dataclass(frozen=True)
class ToolUse:
    """How an answer may use tools: what the model is told, and the grammar that binds it."""

    system: str
    grammar: str


def tool_use(
    functions: Sequence[Function],
    choice: str | Named | None,
    at_most: int,
    *,
    several: bool = False,
) -> ToolUse | None:
    """How a request's functions are used; None if they are not. Raises BadField.

    `choice` is "none", "auto" (the default), "required", or the one function to be called. With
    `several`, an answer may have more than one call.
    """
    if len(functions) > at_most:
        raise BadField(f"there are {len(functions)} tools, expected at most {at_most}", "tools")
    if len({function.name for function in functions}) < len(functions):
        raise BadField("two tools have the same name", "tools")
    if isinstance(choice, Named):
        functions = [function for function in functions if function.name == choice.name]
    if not functions and choice not in (None, "none", "auto"):
        raise BadField("tool_choice asks for a tool that is not among the tools", "tool_choice")
    if not functions or choice == "none":
        return None
    must = choice not in (None, "auto")
    lines = "\n".join(json.dumps(function.to_dict()) for function in functions)
    system = _INTRODUCTION.format(
        order=_MUST if must else _MAY, several=_SEVERAL if several else "", functions=lines
    )
    return ToolUse(system, _grammar(lines, must=must, several=several))


@functools.lru_cache(maxsize=16)  # clients send the same tools with every turn
def _grammar(lines: str, *, must: bool, several: bool) -> str:
    """The GBNF of one or several calls, or of those or a text; each function is a line of JSON."""
    calls, work = [], schema.Work(_MOST_WORK)
    for n, line in enumerate(lines.splitlines()):
        function = Function(**json.loads(line))
        parameters = function.parameters or {"type": "object", "additionalProperties": False}
        try:
            schema.grammar(parameters, work)  # alone first, so that the error says whose it is
        except UsageError as error:
            whose = f"the tool {function.name!r}" if work.left >= 0 else "the tools together"
            raise BadField(f"{whose}: {error}", f"tools.{n}") from None
        calls.append(_call_schema(function.name, schema.moved(parameters, f"/anyOf/{n}{_PLACE}")))
    try:
        grammar = schema.grammar({"anyOf": calls}, work)
    except UsageError as error:
        raise BadField(f"the tools: {error}", "tools") from None
    head, root, rest = f"\n{grammar}".partition("\nroot ::=")
    assert root, "every grammar has a root"
    made = f'call ("\\n" call){{0,{_MOST_CALLS - 1}}}' if several else "call"
    either = made if must else f"{made} | {_TEXT}"
    return f"{head}\nroot ::= {either}\ncall ::={rest}".strip()


def _call_schema(name: str, parameters: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def call_id() -> str:
    """A new id for a call."""
    return f"call_{secrets.token_hex(12)}"


class CallParser:
    """Splits a streamed answer into text, or the name and the arguments of a call."""

    def __init__(self) -> None:
        self._held = ""
        self.is_call: bool | None = None  # None until the first letter
        self.name: str | None = None
        self._has_begun = False  # whether anything of the arguments was given out

    def text(self, piece: str) -> str:
        """The text that is certain; empty for a call."""
        self._held += piece
        if self.is_call is None and self._held.strip():
            self.is_call = self._held.lstrip().startswith("{")
        if self.is_call is not False:
            return ""
        held, self._held = self._held, ""
        return held

    def rest(self) -> str:
        """The text of an answer that ended before it was certain what it is."""
        held = self._held if self.name is None else ""
        self._held = self._held[len(held) :]
        return held

    def arguments(self) -> str:
        """The part of a call's arguments that is new. `name` is set once it is known."""
        if self.is_call and self.name is None:
            head = _HEAD.match(self._held)
            if head is None:
                return ""
            self.name, self._held = head[1], self._held[head.end() :]
        if not self.is_call:
            return ""
        if not self._has_begun:
            self._held = self._held.lstrip()
            self._has_begun = bool(self._held)
        # The call's own brace comes last; until then, any trailing one may be it.
        end = self._held.rstrip()
        keep = len(end) - 1 if end.endswith("}") else len(self._held)
        sure, self._held = self._held[:keep], self._held[keep:]
        return sure


class AnswerParser:
    """Splits a streamed answer into text, or into calls, one a line."""

    def __init__(self) -> None:
        self._parsers = [CallParser()]

    @property
    def is_call(self) -> bool:
        """Whether there is a call whose name is known."""
        return self._parsers[0].name is not None

    def add(self, piece: str) -> tuple[str, list[tuple[int, str | None, str]]]:
        """The text that a piece makes certain; of calls the number, the name if new, and arguments.

        The name comes by itself, before any arguments.
        """
        text, calls = "", []
        for n, line in enumerate(piece.split("\n")):
            parser = self._parsers[-1]
            if n and parser.is_call:
                parser = CallParser()
                self._parsers.append(parser)
            elif n:
                line = f"\n{line}"
            text += parser.text(line)
            named_before, number = parser.name, len(self._parsers) - 1
            arguments = parser.arguments()
            if parser.name != named_before:
                calls.append((number, parser.name, ""))
            if arguments:
                calls.append((number, None, arguments))
        return text, calls

    def rest(self) -> str:
        """The text of an answer that ended before it was certain what it is."""
        return self._parsers[0].rest()
