"""Finding the model that a user names, and the converted copies of checkpoints."""

from __future__ import annotations

import errno
import gc
import os
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import edgesppo
from edgesppo.cli import main
from edgesppo.gguf import gemma2
from edgesppo.llama.model import Model
from edgesppo.store import locate
from edgesppo.store.converted import ensure_converted
from tests.conftest import DEMO
from tests.support.checkpoints import SHAPES, resized, write_checkpoint
from tests.support.command_line import started
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "my model", resized(SHAPES["tiny"], layers=1))


def test_a_copy_is_made_once_and_not_again_for_a_file_that_is_not_read(checkpoint: Path) -> None:
    first = ensure_converted(locate.find(checkpoint))
    (checkpoint / "notes.txt").write_text("mine")
    assert ensure_converted(locate.find(checkpoint)) == first


def test_an_edited_checkpoint_gets_a_new_copy_and_the_old_one_goes(checkpoint: Path) -> None:
    first = ensure_converted(locate.find(checkpoint))
    os.utime(checkpoint / "model.safetensors", (1, 1))
    second = ensure_converted(locate.find(checkpoint))
    assert second != first
    assert second.exists()
    assert not first.exists()


def test_a_damaged_copy_is_made_again(checkpoint: Path) -> None:
    copy = ensure_converted(locate.find(checkpoint))
    whole = copy.read_bytes()
    copy.write_bytes(whole[:1000])
    assert ensure_converted(locate.find(checkpoint)) == copy
    assert copy.read_bytes() == whole


def test_a_copy_that_the_system_cannot_read_just_now_is_kept(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = ensure_converted(locate.find(checkpoint))
    opened = Path.open

    def fail(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == copy:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(edgesppo.BadModelFile, match="Too many open files"):
            ensure_converted(locate.find(checkpoint))
    assert copy.exists()


@pytest.mark.parametrize("kind", ["file", "copy", "damaged copy", "command"])
def test_a_load_reads_the_header_once(
    checkpoint: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    copy = ensure_converted(locate.find(checkpoint))
    if kind == "damaged copy":
        copy.write_bytes(copy.read_bytes()[:1000])
    read, heads = gemma2.read, []

    def noted(path: Path, *rest: Any) -> Summary:
        summary = read(path, *rest)
        heads.append(path)
        return summary

    monkeypatch.setattr(gemma2, "read", noted)
    if kind == "command":
        done = CliRunner().invoke(main, ["run", str(checkpoint), "Hi", "--max-tokens", "1"])
        assert done.exit_code == 0, done.output
    else:
        edgesppo.load(demo_gguf if kind == "file" else checkpoint).close()
    assert heads.count(demo_gguf if kind == "file" else copy) == 1
    assert set(heads) <= {demo_gguf, copy} or kind == "damaged copy", "the converter reads its own"


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_that_are_not_utf8_are_no_obstacle(checkpoint: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(checkpoint) + b"\xff"))
    checkpoint.rename(odd)
    (odd / os.fsdecode(b"\xfe.json")).write_text("{}")
    with edgesppo.load(odd) as model:
        assert model.tokenize("Hi")


def test_what_is_no_name_and_no_path_is_refused() -> None:
    with pytest.raises(edgesppo.UsageError, match="model is None"):
        edgesppo.load(None)  # type: ignore[arg-type]


def test_an_unclosed_model_is_freed_when_it_is_collected(demo_gguf: Path) -> None:
    model = Model(demo_gguf, vocabulary_only=True)
    model.detokenize(model.tokenize("Hello"))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_is_raised_while_loading_reaches_the_caller(
    demo_gguf: Path, error: type[BaseException]
) -> None:
    def interrupt(_fraction: float) -> None:
        raise error

    with pytest.raises(error):
        edgesppo.load(demo_gguf, on_load=interrupt)


def test_who_comes_second_waits_for_the_copy_that_another_makes(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    words = [sys.executable, "-m", "edgesppo", "run", str(DEMO), "hi", "--temperature", "0"]
    runs = [started(words, stdin=-3, stdout=-1, stderr=-1, cwd=ROOT) for _ in range(3)]
    with runs[0] as first, runs[1] as second, runs[2] as third:
        for process in (first, second, third):
            answer, said = process.communicate(timeout=60)
            assert answer == b"Hello! How can I help you?\n", said
