"""Ctrl-C while native code loads a model or creates a context is not lost and leaks nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.engine.engine import Engine
from edgesppo.llama.library import C
from tests.support.resources import native_handles

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel


def interrupted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Send Ctrl-C when llama.cpp is called, so that it arrives in a Python callback."""
    real = getattr(C, name)

    def call(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(C, name, call)


def test_ctrl_c_ends_the_loading(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = native_handles()
    interrupted(monkeypatch, "llama_model_load_from_file")
    with pytest.raises(KeyboardInterrupt):
        edgesppo.load(demo_gguf)
    assert native_handles() == before


def test_ctrl_c_frees_the_context_that_was_made(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[Any] = []
    real = C.llama_free
    interrupted(monkeypatch, "llama_init_from_model")
    monkeypatch.setattr(C, "llama_free", lambda handle: (freed.append(handle), real(handle)))
    with pytest.raises(KeyboardInterrupt):
        Engine(demo._interior.engine.model)
    assert len(freed) == 1
