"""Parse a model card (README.md): the licence, base models and data sets that it claims.

The header is YAML between two lines of `---`. Only the subset that cards use is read: a key at the
start of a line with a text, a `[list]`, or lines of `- item` below it. Whatever cannot be parsed
is left out and is never an error, as cards are written by hand.

    ---
    license: gemma
    base_model: google/gemma-2-9b-it
    datasets:
    - openbmb/UltraFeedback
    ---
    - License: Apache-2.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgesppo.lockfile.entries import REPOSITORY

CARD = "README.md"
MAX_BYTES = 1 << 20
MAX_ITEMS = 32
MAX_TEXT = 200

_KEY = re.compile(r"([A-Za-z_][\w-]{0,63}):(?:[ \t]+(.*))?")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*)")
_LICENSE = re.compile(
    r"^[ \t]{0,9}[-*]?[ \t]{0,9}\*{0,3}licen[cs]e\*{0,3}[ \t]{0,9}:\*{0,3}[ \t]{0,9}\[?"
    r"([A-Za-z][\w.+ -]{1,63})",
    re.IGNORECASE | re.MULTILINE | re.ASCII,
)
_BASE = re.compile(
    r"finetuned from(?: model)?\*{0,3}[ \t]{0,9}:\*{0,3}[ \t]{0,9}\[?(" + REPOSITORY.pattern + ")",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Card:
    """The claims of a model card; None or an empty tuple where it makes none."""

    license: str | None = None  # in the header
    license_name: str | None = None
    license_link: str | None = None
    license_in_text: str | None = None
    base_models: tuple[str, ...] = ()  # OWNER/NAME
    datasets: tuple[str, ...] = ()  # OWNER/NAME


def read_card(data: bytes | None) -> Card:
    """Parse the bytes of a README.md, at most MAX_BYTES of them; None is an empty card."""
    return parse_card((data or b"")[:MAX_BYTES].decode("utf-8-sig", "replace"))


def parse_card(text: str) -> Card:
    """Parse the text of a card."""
    header, body = _split(text.splitlines())
    values = _parse_header(header)
    prose = "\n".join(body)
    in_text, base = _LICENSE.search(prose), _BASE.search(prose)
    return Card(
        license=_first(values, "license"),
        license_name=_first(values, "license_name"),
        license_link=_first(values, "license_link"),
        license_in_text=in_text[1].strip() if in_text else None,
        base_models=_repositories(values, "base_model") or ((base[1],) if base else ()),
        datasets=_repositories(values, "datasets"),
    )


def _split(lines: list[str]) -> tuple[list[str], list[str]]:
    if lines and lines[0].rstrip() == "---":
        for number, line in enumerate(lines[1:], 1):
            if line.rstrip() == "---":
                return lines[1:number], lines[number + 1 :]
    return [], lines


def _parse_header(lines: list[str]) -> dict[str, list[str]]:
    """The values of every key that has any, at most MAX_ITEMS each."""
    values: dict[str, list[str]] = {}
    under: list[str] = []
    for line in lines:
        if key := _KEY.fullmatch(line.rstrip()):
            under = values.setdefault(key[1], [])
            under.extend(_scalars(key[2] or ""))
        elif item := _ITEM.fullmatch(line.rstrip()):
            under.extend(_scalars(item[1]))
    return {key: found[:MAX_ITEMS] for key, found in values.items() if found}


def _scalars(text: str) -> list[str]:
    """One scalar, or the items of a list in brackets."""
    text = text.strip()
    parts = text[1:-1].split(",") if text[:1] == "[" and text[-1:] == "]" else [text]
    return [value for part in parts if (value := _scalar(part.strip()))]


def _scalar(text: str) -> str | None:
    """A plain or quoted string; None if it is nested, folded, too long or not printable."""
    quoted = re.fullmatch(r"\"([^\"\\]*)\"|'([^'\\]*)'", text)
    if quoted:
        text = quoted[1] or quoted[2] or ""
    elif text[:1] in ("{", "}", "[", "]", "|", ">", "&", "*", "!", "#", "%", "@", "`", '"', "'"):
        return None
    else:
        text = re.split(r"[ \t]#", text)[0].rstrip()
    fine = 0 < len(text) <= MAX_TEXT and text.isprintable()
    return text if fine and text not in ("null", "~") else None


def _first(values: dict[str, list[str]], key: str) -> str | None:
    return values[key][0] if key in values else None


def _repositories(values: dict[str, list[str]], key: str) -> tuple[str, ...]:
    return tuple(text for text in values.get(key, ()) if REPOSITORY.fullmatch(text))
