"""Tools for a model that was not trained for them: told in the system text, bound by a grammar.

A call is the JSON `{"name": ..., "arguments": {...}}`. Its grammar comes from the tools' own
schemas, so the name exists and the arguments are valid. Where the model may choose, an answer that
begins as a call of one of them is one, and any other is text, or JSON where a format is asked for.
Several calls, for clients that ask for them with `parallel_tool_calls`, are one a line.
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
    from collections.abc import Container, Sequence

# What a call begins with, in parts, so that it is also known as far as it has come.
_HEAD_PARTS = [
    *(r"\s*", r"\{", r"\s*", *'"name"', r"\s*", ":", r"\s*", '"', r'([^"\\]*)', '"'),
    *(r"\s*", ",", r"\s*", *'"arguments"', r"\s*", ":", r"\s*"),
]
_HEAD = re.compile("".join(_HEAD_PARTS))
_HEAD_BEGUN = re.compile(
    functools.reduce(lambda rest, part: f"(?:{part}{rest})?", reversed(_HEAD_PARTS))
)
# A rule's name, or a text or a set of characters, in which other brackets and quotes are escaped.
_RULE = re.compile(r'"[^"]*"|\[[^\]]*\]|(?P<name>\b[a-z][a-z0-9]*)')
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
    """A function that the model may call; `parameters` is the JSON Schema of its arguments.

    Of a schema that cannot be followed as a whole, the rest is, unless it is `strict`.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What the model is told of it."""
        told = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {key: value for key, value in told.items() if value is not None}


@dataclass(frozen=True)
class Named:
    """The choice of one function, by its name."""

    name: str


@dataclass(frozen=True)
class ToolUse:
    """How an answer may use tools: what the model is told, and the grammar that binds it."""

    system: str
    grammar: str
    names: frozenset[str]  # of the functions
    is_required: bool  # the answer has to be a call


def tool_use(
    functions: Sequence[Function],
    choice: str | Named | None,
    at_most: int,
    *,
    several: bool = False,
    answer: str | None = None,
) -> ToolUse | None:
    """How a request's functions are used; None if they are not. Raises BadField.

    `choice` is "none", "auto" (the default), "required", or the one function to be called. With
    `several`, an answer may have more than one call. `answer` is the grammar of an answer that is
    no call, where it is not just text.
    """
    if len(functions) > at_most:
        raise BadField(f"there are {len(functions)} tools, expected at most {at_most}", "tools")
    names = [function.name for function in functions]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadField(f"two tools have the name {twice!r}", "tools")
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
    strict = tuple(function.strict for function in functions)
    grammar = _grammar(lines, strict, must=must, several=several, answer=answer)
    return ToolUse(system, grammar, frozenset(names), must)


@functools.lru_cache(maxsize=16)  # clients send the same tools with every turn
def _grammar(
    lines: str, strict: tuple[bool, ...], *, must: bool, several: bool, answer: str | None
) -> str:
    """The GBNF of one or several calls, or of those or an answer; a function is a line of JSON."""
    calls, work = [], schema.Work(_MOST_WORK)
    for n, (line, is_strict) in enumerate(zip(lines.splitlines(), strict, strict=True)):
        function = Function(**json.loads(line), strict=is_strict)
        try:
            parameters = _followed(function, work)
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
    either = made if must else f"{made} | {_TEXT if answer is None else 'answer'}"
    whole = f"{head}\nroot ::= {either}\ncall ::={rest}".strip()
    return whole if must or answer is None else f"{whole}\n{_renamed(answer)}"


def _followed(function: Function, work: schema.Work) -> dict[str, Any]:
    """The schema of a function's arguments, as far as it can be followed. Raises UsageError."""
    parameters = function.parameters or {"type": "object", "additionalProperties": False}
    try:
        schema.grammar(parameters, work)  # alone, so that the error says whose it is
    except UsageError:
        if function.strict or work.left < 0:
            raise
        parameters = schema.loosened(parameters)
        schema.grammar(parameters, work)
    return parameters


def _renamed(grammar: str) -> str:
    """A grammar whose rules have other names: `answer`, and an "a" before all others."""

    def rename(found: re.Match[str]) -> str:
        name = found["name"]
        return found[0] if name is None else "answer" if name == "root" else f"a{name}"

    return _RULE.sub(rename, grammar)


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
    """Splits a streamed answer into text, or the name and the arguments of a call.

    `names` are those of the functions: JSON of the answer's own may look like a call of another.
    """

    def __init__(self, names: Container[str]) -> None:
        self._names = names
        self._held = ""
        self.is_call: bool | None = None  # None until the first letter; a guess until the name
        self.name: str | None = None
        self._has_begun = False  # whether anything of the arguments was given out

    def text(self, piece: str) -> str:
        """The text that is certain; empty for a call."""
        self._held += piece
        if self.name is None and self.is_call is not False and self._held.strip():
            head = _HEAD.match(self._held)
            begun = head is None and _HEAD_BEGUN.fullmatch(self._held) is not None
            self.is_call = begun if head is None else head[1] in self._names
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


def are_whole(arguments: str) -> bool:
    """Whether a call's arguments were not cut off."""
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


class AnswerParser:
    """Splits a streamed answer into text, or into calls of the functions `names`, one a line."""

    def __init__(self, names: Container[str]) -> None:
        self._names = names
        self._parsers = [CallParser(names)]
        self._arguments = ""  # of the last call

    @property
    def is_whole_call(self) -> bool:
        """Whether there are calls, with whole arguments."""
        return self._parsers[0].name is not None and are_whole(self._arguments)

    def add(self, piece: str) -> tuple[str, list[tuple[int, str | None, str]]]:
        """The text that a piece makes certain; of calls the number, the name if new, and arguments.

        The name comes by itself, before any arguments.
        """
        text, calls = "", []
        for n, line in enumerate(piece.split("\n")):
            parser = self._parsers[-1]
            if n and parser.name is not None:
                parser = CallParser(self._names)
                self._parsers.append(parser)
            elif n:
                line = f"\n{line}"
            text += parser.text(line)
            named_before, number = parser.name, len(self._parsers) - 1
            arguments = parser.arguments()
            if parser.name != named_before:
                self._arguments = ""
                calls.append((number, parser.name, ""))
            if arguments:
                self._arguments += arguments
                calls.append((number, None, arguments))
        return text, calls

    def rest(self) -> str:
        """The text of an answer that ended before it was certain what it is."""
        return self._parsers[0].rest()
