"""API keys: where they come from, and whose a given one is."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

# The environment's variable of keys, with commas between; a client has one there.
VARIABLE = "EDGESPPO_API_KEY"
FORM = "NAME:KEY, or KEY alone, then requests=N and tokens=N (both per minute) if limited"
_LEAST = 8  # characters of a key
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
BUDGETS = ("requests", "tokens")  # what may be limited, per minute


@dataclass(frozen=True)
class ApiKey:
    """Someone who may use the server; of the key itself only the hash is kept.

    The budgets are per minute; None is no limit.
    """

    name: str
    digest: bytes
    requests: int | None = None
    tokens: int | None = None


def digest(key: str) -> bytes:
    """The hash by which keys are compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def find(keys: Sequence[ApiKey], given: str) -> ApiKey | None:
    """Whose key this is. It takes as long for a key that is almost right as for any other."""
    hashed = digest(given)
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, hashed):
            found = key
    return found


def given(authorization: str, x_api_key: str) -> str:
    """The key of a request with these headers; empty if it has none."""
    kind, _, token = authorization.partition(" ")
    return token.strip() if kind.lower() == "bearer" else x_api_key


def read_file(path: Path) -> list[ApiKey]:
    """The keys of a file, one a line; lines that begin with # are comments. Raises UsageError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"the file of API keys {path} cannot be read: {reason}") from None
    keys = parse(enumerate(lines, 1), str(path))
    if not keys:
        raise UsageError(f"the file of API keys {path} has none; expected lines of {FORM}")
    return keys


def from_environment() -> list[ApiKey]:
    """The keys of EDGESPPO_API_KEY. Raises UsageError, which never shows a key."""
    return parse(enumerate(os.environ.get(VARIABLE, "").split(","), 1), VARIABLE)


def parse(lines: Iterable[tuple[int, str]], where: str) -> list[ApiKey]:
    """The keys of numbered lines. Raises UsageError, which never shows a key."""
    keys: list[ApiKey] = []
    for n, line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = _parse_line(words, f"{where}, line {n}", f"key-{len(keys) + 1}")
        if any(key.name == other.name for other in keys):
            raise UsageError(f"{where}, line {n} names {key.name!r} a second time")
        if any(key.digest == other.digest for other in keys):
            raise UsageError(f"{where}, line {n} has the key of another line")
        keys.append(key)
    return keys


def to_send() -> str:
    """The key of EDGESPPO_API_KEY that a client sends, read as a server does; "" if there is none.

    Raises UsageError for anything that the server would not take, or several keys.
    """
    n_keys = len(from_environment())
    if n_keys > 1:
        raise UsageError(
            f"{VARIABLE} has {n_keys} keys, expected the one to send: NAME:KEY, or KEY"
        )
    lines = os.environ.get(VARIABLE, "").split(",")
    words = [words[0] for words in map(str.split, lines) if words and words[0][0] != "#"]
    return _split(words[0], "")[1] if words else ""


def _split(word: str, default_name: str) -> tuple[str, str]:
    """The name and the key."""
    name, colon, secret = word.partition(":")
    return (name, secret) if colon else (default_name, word)


def _parse_line(words: list[str], where: str, default_name: str) -> ApiKey:
    name, secret = _split(words[0], default_name)
    if not _NAME.match(name) or len(secret) < _LEAST or not secret.isascii():
        raise UsageError(
            f"{where} is no key of at least {_LEAST} ASCII characters; expected {FORM}"
        )
    budgets = dict(_parse_budget(word, where) for word in words[1:])
    return ApiKey(name, digest(secret), **budgets)


def _parse_budget(word: str, where: str) -> tuple[str, int]:
    name, _, number = word.partition("=")
    if name not in BUDGETS or not number.isdecimal() or len(number) > 12 or not int(number):
        raise UsageError(f"{where} has {word[:20]!r} after the key; expected {FORM}")
    return name, int(number)
