"""The page of the Python API, from the docstrings of its public names."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

import edgesppo
import edgesppo_convert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_HEAD = """\
# Python reference

Every public name, from its docstring. [python](python.md) shows how they are used together.
"""
_SECTION = re.compile(r"(Args|Raises|Attributes|Returns|Yields):")
_ITEM = re.compile(r"([*\w.]+): (.*)")
_COLUMNS = 76


def page() -> str:
    """The page's Markdown."""
    lines = [_HEAD]
    for module in (edgesppo, edgesppo.evaluate, edgesppo_convert):
        lines += [f"## {module.__name__}", ""]
        lines += [line for name in _names(module) for line in _entry(name, getattr(module, name))]
    return "\n".join(lines).rstrip("\n") + "\n"


def _names(module: ModuleType) -> list[str]:
    """The public names: functions first, then classes, then errors."""

    def kind(name: str) -> int:
        value = getattr(module, name)
        if not inspect.isclass(value):
            return 0
        return 2 if issubclass(value, BaseException) else 1

    return sorted(module.__all__, key=lambda name: (kind(name), name))


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if not inspect.isclass(value):
        yield from _signature(name, value)
    elif issubclass(value, BaseException):
        bases = ", ".join(base.__name__ for base in value.__bases__)
        yield f"An error; a subclass of {bases}."
        yield ""
    elif dataclasses.is_dataclass(value):
        yield from _signature(name, value)
    yield from _markdown(inspect.getdoc(value) or "")
    if inspect.isclass(value):
        yield from _members(name, value)


def _members(owner: str, kind: type) -> Iterator[str]:
    """The methods and properties of a class and of our classes that it is built on, in order."""
    ours = [base for base in kind.__mro__[1:] if base.__module__.startswith("edgesppo.")]
    members = dict(vars(kind))
    if not issubclass(kind, BaseException):
        members.update({k: v for base in ours for k, v in vars(base).items() if k not in members})
    for name, member in members.items():
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        if isinstance(member, property):
            yield f"#### {owner}.{name}"
            yield ""
        elif isinstance(member, classmethod | staticmethod) or inspect.isfunction(member):
            yield f"#### {owner}.{name}()"
            yield ""
            yield from _signature(name, getattr(kind, name))
        else:
            continue
        yield from _markdown(inspect.getdoc(member) or "")


def _signature(name: str, function: Callable[..., Any]) -> Iterator[str]:
    """A block of code with the call, on one line if it fits."""
    signature = inspect.signature(function)
    parts = [text for text in _parameters(signature) if text != "self"]
    result = signature.return_annotation
    end = ")" if result in (inspect.Signature.empty, None, "None") else f") -> {_name(result)}"
    call = f"{name}({', '.join(parts)}{end}"
    yield "```text"
    if len(call) <= _COLUMNS:
        yield call
    else:
        yield f"{name}("
        yield from (f"    {part}," for part in parts)
        yield end
    yield "```"
    yield ""


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    keywords = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            yield "*"
        keywords = keywords or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        text = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            text = f"*{text}"
        if parameter.kind is parameter.VAR_KEYWORD:
            text = f"**{text}"
        if parameter.annotation is not parameter.empty:
            text += f": {_name(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default!r}"
        yield text


def _name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")


def _markdown(doc: str) -> Iterator[str]:
    """A docstring as Markdown: its sections of arguments and errors as lists."""
    section = False
    for line in doc.split("\n"):
        if match := _SECTION.fullmatch(line):
            section = True
            yield f"**{match[1]}**"
            yield ""
        elif section and line.startswith("    "):
            item = None if line.startswith(" " * 8) else _ITEM.match(line.strip())
            yield f"- `{item[1]}`: {item[2]}" if item else f"  {line.strip()}"
        else:
            section = section and not line
            yield line
    yield ""
