"""Read, check and write models.lock, a TOML file.

    version = 1

    [[model]]
    name = "sppo-iter3"             the name on the command line
    kind = "checkpoint"             "checkpoint" or "gguf"
    description = "..."
    shipped = "edgesppo/demo"       its folder in this package, or
    location = "/models/mine"       its folder on this machine, or
    repository = "OWNER/NAME"       its repository on the hub, and
    revision = "0123..."            the commit: 40 hex digits, or "unresolved"
    license = "gemma"               according to the header of the model card
    license_name = "..."            its name in the header, where the hub does not know it
    license_in_text = "..."         according to the text of the model card
    license_in_file = "..."         according to the file LICENSE, and
    license_digest = "..."          the hash of that file
    license_link = "https://..."
    base_model = "OWNER/NAME"       the model that it was trained from, and
    base_revision = "unresolved"    its commit
    method = "SPPO"                 the training method, and
    iteration = 3                   its round
    dataset = "OWNER/NAME"          the prompts that it was trained on
    paper = "https://..."           the paper on the method
    [model.shape]                   what is published of it: see published.py, also for
                                    [model.training], [[model.result]] and [model.citation]
    [[model.file]]                  every file; none while the revision is unresolved
    path = "config.json"            inside the model's folder
    size = 842                      bytes
    sha256 = "..."                  64 hex digits; of a small file once it was downloaded
    oid = "..."                     git's blob id, of a large file's pointer: 40 hex digits
    [[model.build]]                 a GGUF file that was made from the checkpoint; several of one
                                    recipe and platform where processors rounded differently
    recipe = "q4_k_m"
    platform = "linux-x86_64"       rounding differs between platforms
    converter = "edgesppo 0.1.0"
    library = "llama-cpp-python 0.3.36"
    size = 1000
    sha256 = "..."

Files at a location are verified by size and hash like all others, so any lock may name one,
including a project's lock that `import` wrote to. It must be a folder on this machine.

A branch is not accepted as a revision, because it changes. An unresolved revision is pinned by the
first machine that reaches the hub, in its user's lock.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadLock
from edgesppo.lockfile import checks
from edgesppo.lockfile.entries import (
    GGUF,
    KINDS,
    NAME,
    UNRESOLVED,
    Lock,
    PinnedBuild,
    PinnedFile,
    PinnedModel,
    same_name,
)
from edgesppo.lockfile.published import read_published, values_of
from edgesppo.system.fs import read_regular
from edgesppo.system.paths import PACKAGE
from edgesppo.system.validate import quoted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

VERSION = 1
_MAX_BYTES = 2 << 20  # of a lock: a hundred and fifty models of fifty files
_MAX_PARTS = 4  # of a dotted key, of which no lock has any
# What begins or ends a part of a key, a value or a comment; and where a string or comment ends.
_MARK = re.compile(r"\"\"\"|'''|[\"'#]|\.+|[\n=,{}\[\]]+")
_ENDS = {
    '"""': re.compile(r"(?:[^\\\"]|\\.|\"(?!\"\"))*\"\"\"", re.DOTALL),
    "'''": re.compile(r".*?'''", re.DOTALL),
    '"': re.compile(r"(?:[^\\\"\n]|\\.)*\""),
    "'": re.compile(r"[^'\n]*'"),
    "#": re.compile(r"[^\n]*"),
}
_BOM = "\ufeff"
_COMMENT = "# What edgesppo runs, file by file. Paths are inside the model's folder."
_TABLES = ("shape", "training", "results", "citation", "files", "builds")
_PUBLISHED = ("shape", "training", "result", "citation")
_SOURCES = ("shipped", "location", "repository")
_KEYS = tuple(field.name for field in fields(PinnedModel) if field.name not in _TABLES)


def path() -> Path:
    """The path of the shipped models.lock: in the installed package, or at a checkout's root."""
    installed = PACKAGE / "pins" / "models.lock"
    return installed if installed.exists() else PACKAGE.parent / "models.lock"


def read(file: Path | None = None) -> Lock:
    """Read and check a lock, by default the shipped one. Raises BadLock with file and entry."""
    advice = "correct it, or move it away" if file else "reinstall edgesppo"
    file = file or path()
    try:
        if file.exists() and not file.is_file():
            raise BadLock(f"{file}: not a regular file")
        lock = _remembered(read_regular(file, _MAX_BYTES).decode("utf-8"), str(file))
        return Lock({**lock.models})
    except BadLock as error:
        raise BadLock(f"{error}; {advice}") from None
    except OSError as error:
        raise BadLock(f"{file}: cannot be read: {error.strerror or error}; {advice}") from None
    except UnicodeDecodeError as error:
        raise BadLock(f"{file}: not UTF-8 at byte {error.start}; {advice}") from None


def parse(text: str, origin: str) -> Lock:
    """Parse and check the text of a lock; `origin` names it in errors. Raises BadLock."""
    if text.startswith(_BOM):
        raise BadLock(f"{origin}: begins with a byte order mark; save it as UTF-8 without one")
    if len(text.encode("utf-8", "replace")) > _MAX_BYTES:
        raise BadLock(f"{origin}: a lock of more than {_MAX_BYTES:,} bytes")
    _check_keys(text, origin)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, or a number with too many digits
        raise BadLock(f"{origin}: not TOML: {error}") from None
    if not data:  # a file that is about to become a lock
        return Lock({})
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise BadLock(f"{origin}: version is {quoted(data.get('version'))}, expected {VERSION}")
    checks.check_keys({"version", "model"}, data, origin)
    models: dict[str, PinnedModel] = {}
    names: dict[str, str] = {}
    entries = () if data.get("model", []) == [] else checks.required_tables(data, "model", origin)
    for n, entry in enumerate(entries, 1):
        model = _model(entry, f"{origin}: model {n}")
        other = names.setdefault(same_name(model.name), model.name)
        if model.name in models or other != model.name:
            also = "" if other == model.name else f", also as {quoted(other)}"
            raise BadLock(f"{origin}: the name {quoted(model.name)} occurs twice{also}")
        models[model.name] = model
    return Lock(models)


# One command reads the same few locks several times.
_remembered = functools.lru_cache(maxsize=4)(parse)


def _check_keys(text: str, origin: str) -> None:
    """Refuse keys of many parts: the time to parse one grows with the square of their number."""
    at = dots = 0
    while found := _MARK.search(text, at):
        mark, at = found[0], found.end()
        if mark in _ENDS:
            end = _ENDS[mark].match(text, at)
            if end is None:
                return  # the rest is not TOML
            at = end.end()
        else:
            dots = dots + len(mark) if mark[0] == "." else 0
        if dots >= _MAX_PARTS:
            line = text.count("\n", 0, at) + 1
            raise BadLock(
                f"{origin}: the key on line {line} has more than {_MAX_PARTS} parts, expected one"
            )


def _model(entry: dict[str, Any], where: str) -> PinnedModel:
    checks.check_keys({*_KEYS, *_PUBLISHED, "file", "build"}, entry, where)
    required = ("name", "kind", "description", "license")
    keys = [key for key in _KEYS if key in entry or key in required]
    values = {key: checks.required_value(entry, key, where) for key in keys}
    if not NAME.fullmatch(values["name"]):
        raise BadLock(f"{where}: name is {quoted(values['name'])}, expected letters, digits, '.-_'")
    checks.check_name(values["name"], where)
    if values["kind"] not in KINDS:
        raise BadLock(
            f"{where}: kind is {quoted(values['kind'])}, expected one of {', '.join(KINDS)}"
        )
    _check_source(values, where)
    checks.check_repository(values, "repository", "revision", where)
    checks.check_repository(values, "base_model", "base_revision", where)
    checks.check_claims(values, where)
    files = _files(entry, values, where)
    builds: tuple[PinnedBuild, ...] = ()
    if "build" in entry:
        tables = enumerate(checks.required_tables(entry, "build", where), 1)
        builds = tuple(checks.read_build(table, f"{where}, build {n}") for n, table in tables)
        checks.check_builds(builds, where)
    return PinnedModel(**values, **read_published(entry, where), files=files, builds=builds)


def _check_source(values: dict[str, Any], where: str) -> None:
    if sum(values.get(key) is not None for key in _SOURCES) != 1:
        raise BadLock(f"{where}: expected exactly one of {', '.join(_SOURCES)}")
    if "shipped" in values:
        checks.relative_path(values["shipped"], where)
    location = values.get("location")
    if location is not None:
        checks.check_location(location, where)


def _files(entry: dict[str, Any], values: dict[str, Any], where: str) -> tuple[PinnedFile, ...]:
    if values.get("revision") == UNRESOLVED:
        if "file" in entry:
            raise BadLock(f"{where}: files are listed, but the revision is {UNRESOLVED}")
        return ()
    tables = enumerate(checks.required_tables(entry, "file", where), 1)
    files = tuple(checks.read_file(table, f"{where}, file {n}") for n, table in tables)
    checks.check_distinct_paths([file.path for file in files], where)
    if values["kind"] == GGUF and len(files) != 1:
        raise BadLock(f"{where}: {len(files)} files are listed, expected one for the kind {GGUF!r}")
    return files


def render(lock: Lock, before: str = "") -> str:
    """The text of a lock; `parse` returns the same lock. The comment that `before` begins with
    is kept.
    """
    comment = list(itertools.takewhile(lambda line: line.startswith("#"), before.splitlines()))
    lines = [*(comment or [_COMMENT]), "", f"version = {VERSION}"]
    for model in lock.models.values():
        lines += ["", "[[model]]"]
        lines += _values(model, _KEYS)
        lines += _published(model)
        for file in model.files:
            lines += _table("file", file, checks.FILE_KEYS)
        for build in model.builds:
            lines += _table("build", build, checks.BUILD_KEYS)
    return "\n".join(lines) + "\n"


def _published(model: PinnedModel) -> Iterator[str]:
    results = [("[[model.result]]", result) for result in model.results]
    titled = [
        ("[model.shape]", model.shape),
        ("[model.training]", model.training),
        *results,
        ("[model.citation]", model.citation),
    ]
    for title, table in titled:
        if table is not None:
            yield from (
                "",
                title,
                *(f"{key} = {_quoted(value)}" for key, value in values_of(table)),
            )


def _table(name: str, item: PinnedFile | PinnedBuild, keys: Sequence[str]) -> list[str]:
    return ["", f"[[model.{name}]]", *_values(item, keys)]


def _values(item: object, keys: Sequence[str]) -> list[str]:
    values = ((key, getattr(item, key)) for key in keys)
    return [f"{key} = {_quoted(value)}" for key, value in values if value is not None]


def _quoted(value: str | float) -> str:
    """A value in TOML, which has all the escapes of JSON and requires one more."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
