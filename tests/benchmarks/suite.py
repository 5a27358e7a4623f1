"""The benchmarks that `make bench` runs, with the files and the sizes that each gets.

A quick run takes a small model, fewer sizes, and leaves out what cannot be short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks import files, peers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Words = list[str | int | Path]


@dataclass(frozen=True)
class Part:
    """One benchmark: its program in this folder, and the words it is called with."""

    title: str
    program: str
    full: Callable[[], Words]
    quick: Callable[[], Words] | None = None  # None: not part of a quick run


QUICK, FULL, LARGE = "0.5b", "2b", "9b"
QUICK_ROUNDS = 3


def _turn() -> Words:
    """llama-bench runs the file in llama.cpp's own order."""
    standard = files.model(FULL, layout="standard")
    benches = [
        f"llama-bench, {build.name}={build.tool('llama-bench')}={standard}"
        for build in (peers.pip_build(), peers.same_build())
    ]
    return [files.model(FULL), "--llama-bench", *benches]


def _model(shape: str, *more: str | int) -> Callable[[], Words]:
    return lambda: [files.model(shape), *more]


def _both_layouts(shape: str) -> Callable[[], Words]:
    return lambda: [files.model(shape), "--standard", files.model(shape, layout="standard")]


def _quality(shape: str, *more: str | int) -> Callable[[], Words]:
    return lambda: [files.model(shape, "q8_0"), files.model(shape), files.text(), *more]


def _limits(shape: str, converted: str) -> Callable[[], Words]:
    return lambda: [files.model(shape), files.checkpoint(converted)]


def _shape(name: str, *more: str) -> Callable[[], Words]:
    def words() -> Words:
        files.checkpoint(name)
        return ["--shape", name, *more]

    return words


_SHORT_TURN = ("--prompt", 256, "--answer", 32)
_FEW = (
    *("--only", "chat", "crowd", "--clients", 4, "--answer-tokens", 16),
    *("--peers", "llama-server"),
)
_SERVERS = ("--only", "first", "chat", "crowd", "--clients", 4, "--peers", "llama-server")
PARTS = {
    "conversion": Part(
        "Converting a checkpoint, of a fifth of the 2B or less, to Q4_K_M",
        "convert",
        _shape(QUICK),
        _shape("0.15b"),
    ),
    "memory": Part("Loading, and memory", "footprint", _both_layouts(FULL), _both_layouts(QUICK)),
    "speed": Part(
        "Prompts, answers, and a whole turn", "speed", _model(FULL), _model(QUICK, *_SHORT_TURN)
    ),
    "speed-9b": Part(
        "The same with the shape of the 9B",
        "speed",
        _model(LARGE, "--prompt", 256, "--answer", 24, "--rounds", 2),
    ),
    "busy": Part(
        "Beside a busy program", "speed", _model(FULL, *_SHORT_TURN, "--answer", 64, "--busy", 1)
    ),
    "turn": Part("A turn in one context and in two", "turn", _turn),
    "server": Part(
        "Servers: first tokens, conversations, many clients",
        "server",
        _model(FULL, *_SERVERS),
        _model(QUICK, *_FEW),
    ),
    "clients": Part(
        "More servers, fewer and more clients, and a long prompt beside an answer",
        "server",
        _model(FULL, "--only", "crowd", "pause"),
    ),
    "batch": Part(
        "Batches",
        "batches",
        _model(FULL),
        _model(QUICK, "--tokens", 16, "--only", "rows", "shared"),
    ),
    "drafts": Part("Guessing tokens", "drafts", _model(FULL)),
    "quality": Part("Calibration and evaluation", "quality", _quality(FULL)),
    "growth": Part(
        "As the work grows",
        "growth",
        _model(FULL, "--rounds", 1),
        _model(QUICK, "--depths", 768, "--sequences", 4),
    ),
    "growth-9b": Part(
        "The same with the shape of the 9B",
        "growth",
        _model(LARGE, "--rounds", 1, "--depths", 0, 1536, "--sequences", 1, 4),
    ),
    "schema": Part("Answers bound to a schema", "schema", _model(FULL)),
    "sampling": Part("Sampling", "sampling", _model(FULL, "--tokens", 100)),
    "engine": Part("What the engine adds and saves", "engine", _model(FULL)),
    "preflight": Part("Checking a file", "preflight", _model(FULL), _model(QUICK)),
    "prompt": Part("Prompts of long chats", "prompt", list, list),
    "tuner": Part("Whether tunings agree", "tuner", _model(FULL)),
    "limits": Part("Against the limit", "limits", _limits(FULL, FULL), _limits(QUICK, "0.15b")),
}
