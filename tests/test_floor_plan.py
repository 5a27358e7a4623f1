"""The floor plan: a room imports only from the floors below it, and there are no import cycles.

Every import counts: at the top of a file, inside a function, or for type checking only.
"""

from __future__ import annotations

import ast
import functools
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# From the lowest floor up; rooms on one floor do not import each other.
RUNTIME = [
    {"errors", "_version"},
    {"system", "schema"},
    {"gguf", "sampling", "lockfile", "native_build", "help"},
    {"planning", "hub"},
    {"llama", "cards"},
    {"store", "engine"},
    {"tuning", "chat"},
    {"sessions", "openai_api"},
    {"interior"},
    {"loaded_model"},
    {"api"},
    {"diagnostics", "terminal", "remote"},
    {"repl", "server", "evaluate", "batches"},
    {"cli"},
]
CONVERTER = [
    {"gguf_format", "progress"},
    {"source"},
    {"gemma2"},
    {"quant"},
    {"plan"},
    {"output"},
    {"pipeline"},
]
# Not on any floor: public names, entry point, data, and what is never shipped.
BESIDE = {"__init__", "__main__", "demo", "dev"}
MAY_CONVERT = {"store", "evaluate", "cli"}
SHARED = {"errors", "_version", "system", "gguf", "hub", "lockfile", "llama"}
MOST_FILES = 8  # directly in edgesppo/

PACKAGES = [("edgesppo", "edgesppo", RUNTIME), ("convert", "edgesppo_convert", CONVERTER)]


def _files(folder: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        if "__pycache__" not in path.parts:
            yield path


def _room(file: Path, folder: str) -> str:
    return file.relative_to(ROOT / folder).parts[0].removesuffix(".py")


def _module(file: Path, folder: str, package: str) -> str:
    parts = [package, *file.relative_to(ROOT / folder).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _imports(file: Path, *, late: bool = True, types: bool = True) -> set[str]:
    """The dotted names that a file imports.

    `late` includes imports inside functions, `types` those for type checking only.
    """
    found: set[str] = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if not types:
        tree.body = [node for node in tree.body if not _is_for_types(node)]
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _rooms_of(package: str, imports: set[str]) -> set[str]:
    return {name.split(".")[1] for name in imports if name.startswith(package + ".")}


@pytest.mark.parametrize(("folder", "package", "floors"), PACKAGES)
def test_every_file_is_in_a_room_of_the_plan(
    folder: str, package: str, floors: list[set[str]]
) -> None:
    assert package
    rooms = {_room(file, folder) for file in _files(folder)} - BESIDE
    assert rooms == set().union(*floors)


@pytest.mark.parametrize(("folder", "package", "floors"), PACKAGES)
def test_a_room_imports_only_from_the_floors_below(
    folder: str, package: str, floors: list[set[str]]
) -> None:
    floor_of = {room: n for n, rooms in enumerate(floors) for room in rooms}
    wrong = [
        f"{file.relative_to(ROOT)} imports {used}"
        for file in _files(folder)
        if (room := _room(file, folder)) not in BESIDE
        for used in _rooms_of(package, _imports(file)) & set(floor_of)
        if used != room and floor_of[used] >= floor_of[room]
    ]
    assert not wrong


@pytest.mark.parametrize(("folder", "package", "floors"), PACKAGES)
def test_there_are_no_import_cycles(folder: str, package: str, floors: list[set[str]]) -> None:
    assert floors
    modules = {_module(file, folder, package): file for file in _files(folder)}
    arrows = {name: _targets(_imports(file), modules) - {name} for name, file in modules.items()}
    while leaves := {name for name, targets in arrows.items() if not targets}:
        arrows = {n: targets - leaves for n, targets in arrows.items() if n not in leaves}
    assert not arrows


def _targets(imports: set[str], modules: dict[str, Path]) -> set[str]:
    """The modules that imported names denote or belong to."""
    return {
        name if name in modules else name.rpartition(".")[0]
        for name in imports
        if name in modules or name.rpartition(".")[0] in modules
    }


def _is_converters(name: str) -> bool:
    return name.split(".")[0] == "edgesppo_convert"


def test_few_files_are_outside_of_the_rooms() -> None:
    assert len(list((ROOT / "edgesppo").glob("*.py"))) <= MOST_FILES


def test_only_these_rooms_import_the_converter() -> None:
    users = {
        _room(file, "edgesppo")
        for file in _files("edgesppo")
        if any(_is_converters(name) for name in _imports(file, types=False))
    }
    assert users - BESIDE <= MAY_CONVERT


def test_the_converter_is_imported_only_when_something_is_converted() -> None:
    early = [
        file
        for file in _files("edgesppo")
        if any(_is_converters(name) for name in _imports(file, late=False, types=False))
        and _room(file, "edgesppo") not in BESIDE
    ]
    assert not early


def test_the_converter_uses_only_the_rooms_that_it_may() -> None:
    for file in _files("convert"):
        used = _rooms_of("edgesppo", _imports(file))
        assert used <= SHARED, f"{file.relative_to(ROOT)} imports {used - SHARED}"


def test_nothing_that_ships_imports_what_a_checkout_needs() -> None:
    for folder in ("edgesppo", "convert"):
        for file in _files(folder):
            if _room(file, folder) != "dev":
                assert not any(name.startswith("edgesppo.dev") for name in _imports(file)), file


def test_llama_cpp_is_imported_in_one_file_only() -> None:
    users = [
        file.relative_to(ROOT).as_posix()
        for folder in ("edgesppo", "convert")
        for file in _files(folder)
        if any(name.split(".")[0] == "llama_cpp" for name in _imports(file))
    ]
    assert users == ["edgesppo/llama/library.py"]
