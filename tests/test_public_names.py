"""The public names of the package, and that importing it is cheap."""

from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
import sys
import typing
from typing import TYPE_CHECKING

import pytest

import edgesppo

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = {
    "BadChat",
    "BadCheckpoint",
    "BadLock",
    "BadModelFile",
    "BatchResult",
    "Cancelled",
    "Chat",
    "ChatInUse",
    "ChatNotFound",
    "Chunk",
    "Closed",
    "ContextOverflow",
    "DownloadError",
    "EdgesppoError",
    "IncompleteAnswer",
    "LoadedModel",
    "Message",
    "ModelNotFound",
    "NativeError",
    "OutOfMemory",
    "OutputError",
    "Result",
    "SamplingOptions",
    "SamplingParams",
    "SourceUnreadable",
    "Timings",
    "TokenLogprob",
    "UnsupportedCheckpoint",
    "Usage",
    "UsageError",
    "batch",
    "load",
}


def test_public_names_are_these_and_no_others() -> None:
    assert set(edgesppo.__all__) == NAMES
    assert sorted(edgesppo.__all__) == edgesppo.__all__


def test_every_public_name_resolves_and_unknown_ones_do_not() -> None:
    for name in NAMES:
        assert getattr(edgesppo, name).__module__.startswith("edgesppo.")
    assert not hasattr(edgesppo, "no_such_name")


def test_the_room_for_measuring_is_public_and_imported_when_it_is_used() -> None:
    assert edgesppo.evaluate.__all__ == [
        "CalibrationReport",
        "DivergenceReport",
        "PerplexityReport",
        "calibrate",
        "divergence",
        "perplexity",
    ]


def _modules_after(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(done.stdout.decode().split())


def test_importing_edgesppo_loads_neither_numpy_nor_llama() -> None:
    loaded = _modules_after("import edgesppo")
    assert not loaded & {"numpy", "llama_cpp", "gguf", "click", "huggingface_hub"}


def test_the_command_lines_help_loads_neither_numpy_nor_llama() -> None:
    loaded = _modules_after(
        "from click.testing import CliRunner\nfrom edgesppo.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0"
    )
    assert not loaded & {"numpy", "llama_cpp", "gguf", "prompt_toolkit"}


def test_help_shows_what_a_program_calls_and_names_the_rest() -> None:
    shown = pydoc.render_doc(edgesppo, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    assert len(shown.splitlines()) < 640
    inherited = re.findall(r"inherited from ([\w.]+)", shown)
    assert set(inherited) == {"edgesppo.chat.questions.Questions"}
    for owner in (edgesppo.LoadedModel, edgesppo.Chat):
        for name in vars(owner):
            assert name.startswith("_") or re.search(rf"^     \|  (async )?{name}\b", shown, re.M)
    errors = {name for name in NAMES if _is_error(name)}
    for name in NAMES - errors:
        assert re.search(rf"\b{name}\b", shown), name
    assert "edgesppo.errors" in shown
    assert errors <= {*dir(edgesppo.errors)}


def _is_error(name: str) -> bool:
    found = getattr(edgesppo, name)
    return inspect.isclass(found) and issubclass(found, edgesppo.EdgesppoError)


def test_a_chat_and_its_answers_show_what_is_documented(demo: edgesppo.LoadedModel) -> None:
    chat = demo.chat(max_tokens=1)
    stream = chat.stream("Hi")
    assert {name for name in dir(chat) if not name.startswith("_")} == {
        *("aask", "answered", "ask", "astream", "busy", "cancel", "clear", "continue_", "fork"),
        *("last", "left_out", "messages", "overflow", "params", "regenerate", "stream", "system"),
        *("to_dicts", "undo"),
    }
    assert {name for name in dir(stream) if not name.startswith("_")} == {"close", "send", "throw"}
    assert {name for name in dir(demo) if not name.startswith("_")} == {
        *("aask", "ask", "astream", "chat", "close", "count_tokens", "detokenize", "keep"),
        *("load_s", "n_ctx", "name", "path", "resume", "save", "score", "stream", "tokenize"),
    }


def _public_callables() -> Iterator[tuple[str, object]]:
    """Every public class and function, and what the classes define, by name."""
    for owner in (edgesppo, edgesppo.evaluate):
        for name in owner.__all__:
            found = getattr(owner, name)
            yield name, found
            for base in found.__mro__ if inspect.isclass(found) else ():
                for key, value in vars(base).items():
                    method = value.fget if isinstance(value, property) else value
                    if base.__module__.startswith("edgesppo.") and inspect.isfunction(method):
                        yield f"{name}.{key}", method


def test_the_types_of_everything_public_are_known_at_run_time() -> None:
    found = dict(_public_callables())
    assert {"load", "LoadedModel.chat", "Chat.last", "SamplingParams", "calibrate"} <= {*found}
    for name, public in found.items():
        try:
            typing.get_type_hints(public)
        except (NameError, TypeError) as error:
            pytest.fail(f"{name}: {error}")
    hints = typing.get_type_hints(edgesppo.LoadedModel.chat)
    assert hints["return"] is edgesppo.Chat
