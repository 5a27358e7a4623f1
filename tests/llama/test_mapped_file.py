"""A model file that is replaced, truncated or overwritten while it is loaded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo.llama.mapped_file import MappedFile
from edgesppo.llama.model import Model
from tests.support.resources import open_files

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = "What is the capital of France?"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows does not let mapped files change")


@pytest.fixture
def file(demo_gguf: Path, tmp_path: Path) -> Path:
    """A copy of the demo that tests may damage."""
    return shutil.copy(demo_gguf, tmp_path / "model.gguf")


def test_a_file_replaced_by_renaming_does_no_harm(file: Path, demo_f32: Path) -> None:
    with edgesppo.load(file) as model:
        before = model.ask(QUESTION, temperature=0)
        newer = shutil.copy(demo_f32, file.with_name("newer"))
        newer.replace(file)
        assert model.ask(QUESTION, temperature=0) == before
        file.unlink()
        assert model.ask(QUESTION, temperature=0) == before


def test_a_snapshot_is_bound_to_the_file_that_was_loaded(file: Path, demo_f32: Path) -> None:
    """And not to the file that has its name when the chat is saved."""
    saved = file.with_name("chat.json")
    with edgesppo.load(file) as model:
        chat = model.chat(temperature=0)
        chat.ask(QUESTION)
        shutil.copy(demo_f32, file.with_name("newer")).replace(file)
        model.save(chat, saved)
        again = model.resume(saved, temperature=0)
        again.ask("Thanks")
        assert again.last.usage.cached_tokens > 0
    with edgesppo.load(file) as newer:
        resumed = newer.resume(saved, temperature=0)
        assert all(message.ids is None for message in resumed.messages)
        resumed.ask("Thanks")
        assert resumed.last.usage.cached_tokens == 0


def _cut_short(file: Path) -> None:
    os.truncate(file, 4096)


def _write_over(file: Path) -> None:
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.write(os.urandom(size))


def _make_longer(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def _copy_onto(file: Path) -> None:
    """Overwrite as `cp other.gguf model.gguf` does: the same file, truncated first."""
    file.write_bytes(b"GGUF")


HARM = """
import sys, pathlib, edgesppo
from tests.llama import test_mapped_file
model = edgesppo.load(sys.argv[1])
chat = model.chat(temperature=0)
chat.ask("My name is Ada.")
before = list(chat.messages)
getattr(test_mapped_file, sys.argv[2])(pathlib.Path(sys.argv[1]))
for act in (lambda: chat.ask("Hi"), lambda: model.ask("Hi"), lambda: model.save(chat, sys.argv[3])):
    try:
        act()
    except edgesppo.BadModelFile as error:
        print(error)
assert chat.messages == before
model.close()
print("closed")
"""


@pytest.mark.parametrize("harm", [_cut_short, _write_over, _make_longer, _copy_onto])
def test_a_file_changed_in_place_is_one_clear_error_at_the_next_request(
    file: Path, harm: object
) -> None:
    """Run in a separate process, because touching truncated pages kills it."""
    name = getattr(harm, "__name__", "")
    command = [sys.executable, "-c", HARM, str(file), name, str(file.with_name("chat"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    *errors, closed = done.stdout.splitlines()
    assert closed == "closed"
    assert len(errors) == 3, done.stdout
    assert all(str(file) in line and "renaming the new file over it" in line for line in errors)
    how = "was written to in place" if harm is _write_over else "was changed in place"
    assert how in errors[0]


def test_a_file_changed_in_the_middle_of_an_answer_ends_its_stream(file: Path) -> None:
    with edgesppo.load(file) as model:
        stream = model.chat(temperature=0).stream("Who are you?")
        next(stream)
        _make_longer(file)
        with pytest.raises(edgesppo.BadModelFile, match="changed in place"):
            list(stream)


def test_a_file_that_is_replaced_while_it_loads_is_refused(file: Path, demo_f32: Path) -> None:
    newer = shutil.copy(demo_f32, file.with_name("newer"))

    def replace(fraction: float) -> None:
        if fraction == 1.0 and newer.exists():
            newer.replace(file)

    with pytest.raises(edgesppo.BadModelFile, match="replaced while it was being loaded"):
        Model(file, progress=replace)


def test_a_file_is_held_once_and_let_go(file: Path) -> None:
    before = open_files()
    held = MappedFile(file)
    held.check()
    with held.open() as stream:
        assert stream.seek(0) == 0
        assert stream.read(4) == b"GGUF"
    held.close()
    held.close()
    with pytest.raises(edgesppo.ModelNotFound):
        MappedFile(file.with_name("none"))
    assert open_files() == before


def test_who_reads_the_file_is_alone_as_copies_of_it_share_a_position(file: Path) -> None:
    held = MappedFile(file)
    found: list[bytes] = []

    def read() -> None:
        with held.open() as stream:
            stream.seek(0)
            found.append(stream.read(4))

    other = threading.Thread(target=read)
    with held.open() as stream:
        stream.seek(1)
        other.start()
        other.join(0.1)
        assert (found, stream.read(3)) == ([], b"GUF")
    other.join()
    assert found == [b"GGUF"]
    held.close()


def test_a_ctrl_c_waits_for_who_reads_the_file_and_leaves_no_lock_taken(file: Path) -> None:
    held = MappedFile(file)
    found: list[bytes] = []

    def read() -> None:
        with held.open() as stream:
            signal.raise_signal(signal.SIGINT)
            stream.seek(0)
            found.append(stream.read(4))

    with pytest.raises(KeyboardInterrupt):
        read()
    assert found == [b"GGUF"]
    held.close()
