"""The two roads are one-way: a file imports only what stands before it, `errors` excepted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNTIME = [
    "errors",
    "plain",
    "checks",
    "parameters",
    "schema",
    "home",
    "machine",
    "files",
    "lines",
    "text_file",
    "locked",
    "headroom",
    "pinned",
    "lock_checks",
    "lockfile",
    "locks",
    "remembered",
    "repository",
    "retry",
    "answers",
    "pace",
    "hub",
    "arrival",
    "place",
    "busy",
    "licence",
    "fetch",
    "resolve",
    "obtain",
    "store",
    "care",
    "rubbish",
    "gguf_texts",
    "gguf_cursor",
    "gguf_tensors",
    "gguf_reader",
    "preflight",
    "describe",
    "adopt",
    "batch",
    "draft",
    "_llama",
    "interrupt",
    "weights",
    "context",
    "cuts",
    "mapped",
    "model",
    "prompt",
    "sampler",
    "chain",
    "logprobs",
    "constrained",
    "runner",
    "ending",
    "probe",
    "tune",
    "plan",
    "settings",
    "kv_cache",
    "draft_model",
    "request",
    "accept",
    "schedule",
    "engine",
    "text",
    "generate",
    "structured",
    "chat",
    "snapshot",
    "transcript",
    "chat_file",
    "session",
    "sessions",
    "saved",
    "bench",
    "settle",
    "forecast",
    "compiled",
    "doctor",
    "loaded",
    "trial",
    "made",
    "terminal",
    "repl",
    "cli",
]
CONVERT = [
    "untrusted",
    "safetensors",
    "checkpoint",
    "card",
    "gemma2",
    "spm",
    "vocab",
    "recipe",
    "unrolled",
    "packing",
    "kernels",
    "scales",
    "quantize",
    "tied",
    "target",
    "fetching",
    "remote",
    "gguf_file",
    "layout",
    "importance",
    "journal",
    "progress",
    "part",
    "output",
    "verify",
    "provenance",
    "metadata",
    "blueprint",
    "witness",
    "pipeline",
    "outlook",
]
# What the converter may use of the runtime.
SHARED = {
    "arrival",
    "errors",
    "files",
    "gguf_reader",
    "hub",
    "interrupt",
    "lines",
    "locked",
    "lockfile",
    "machine",
    "pinned",
    "preflight",
    "repository",
    "_llama",
}
MAY_CONVERT = {"adopt", "licence", "made", "loaded", "cli"}


def _imports(file: Path) -> set[str]:
    """Every module that a file imports, at the top or late, but not for types only."""
    found: set[str] = set()
    tree = ast.parse(file.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _parts(package: str, imports: set[str]) -> set[str]:
    return {name.split(".")[1] for name in imports if name.startswith(package + ".")}


def _files(folder: str) -> dict[str, list[Path]]:
    """The files of each module or package right under a folder, by its name."""
    files: dict[str, list[Path]] = {}
    for path in (ROOT / folder).iterdir():
        if path.suffix == ".py" and path.stem.startswith(("__", "bootstrap")):
            continue
        if path.suffix == ".py":
            files[path.stem] = [path]
        elif path.is_dir() and path.name not in ("demo", "__pycache__"):
            files[path.name] = list(path.rglob("*.py"))
    return files


@pytest.mark.parametrize(("folder", "order"), [("edgesppo", RUNTIME), ("convert", CONVERT)])
def test_every_file_has_its_place_in_the_order(folder: str, order: list[str]) -> None:
    assert set(_files(folder)) == set(order)


@pytest.mark.parametrize(
    ("folder", "package", "order"),
    [("edgesppo", "edgesppo", RUNTIME), ("convert", "edgesppo_convert", CONVERT)],
)
def test_files_import_only_what_stands_before_them(
    folder: str, package: str, order: list[str]
) -> None:
    for name, files in _files(folder).items():
        for file in files:
            used = _parts(package, _imports(file)) & set(order)
            late = {part for part in used if order.index(part) >= order.index(name)} - {name}
            assert not late, f"{file.name} imports {late}, which come after it"


def test_only_the_surfaces_import_the_converter() -> None:
    users = {
        name
        for name, files in _files("edgesppo").items()
        if any(i.split(".")[0] == "edgesppo_convert" for f in files for i in _imports(f))
    }
    assert users <= MAY_CONVERT


def test_the_converter_uses_only_the_shared_part_of_the_runtime() -> None:
    for files in _files("convert").values():
        for file in files:
            used = _parts("edgesppo", _imports(file)) & set(RUNTIME)
            assert used <= SHARED, f"{file.name} imports {used - SHARED}"


def test_llama_cpp_is_imported_in_one_file_only() -> None:
    users = [
        path.name
        for folder in ("edgesppo", "convert")
        for path in (ROOT / folder).rglob("*.py")
        if any(name.split(".")[0] == "llama_cpp" for name in _imports(path))
    ]
    assert users == ["_llama.py"]
