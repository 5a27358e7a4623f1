"""The output appears complete or not at all, whatever fails and whenever it fails."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType

from edgesppo.cli import main
from edgesppo.errors import OutputError, UsageError
from edgesppo.system.fs import FileSystem
from edgesppo_convert import Progress, convert
from edgesppo_convert.gguf_format import FilePlan, KeyValue, TensorInfo, plan_file
from edgesppo_convert.output import part_file
from edgesppo_convert.output.output import Output
from edgesppo_convert.source.safetensors import Tensor
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.faulty import Counting, Faulty, Short, convert_on
from tests.support.sweeps import places

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = Shape(1, 256, 64, 2, 1, 64, 600, 256, 64)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", SMALL)


def names(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir()]


def test_the_result_says_what_is_on_the_disk(source: Path, out: Path) -> None:
    seen: list[Progress] = []
    result = convert(source, out, on_progress=seen.append)
    data = out.read_bytes()
    assert result.output == out
    assert result.bytes == len(data)
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    tensors = GGUFReader(out).tensors
    assert result.tensors == len(tensors) == sum(result.types.values())
    weights = sum(int(tensor.n_elements) for tensor in tensors)
    stored = sum(int(tensor.n_bytes) for tensor in tensors)
    assert result.bits_per_weight == pytest.approx(8 * stored / weights)
    assert result.seconds > 0
    made = [progress for progress in seen if progress.stage == "converting"]
    done = [progress.done_bytes for progress in made]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == made[0].total_bytes == stored
    assert {progress.tensor for progress in made} == {"", *(tensor.name for tensor in tensors)}
    read = [progress for progress in seen if progress.stage == "reading back"]
    assert seen == made + read
    assert [read[0].done_bytes, read[-1].done_bytes] == [0, len(data)]
    assert names(out) == ["model.gguf"]


def test_what_is_read_lies_in_order(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a disk reads it from front to back, whatever the order of the output."""
    read: list[int] = []
    monkeypatch.setattr(Tensor, "prefetch", lambda tensor, *_: read.append(tensor.offset))
    convert(source, out)
    assert len(read) >= 13
    assert read == sorted(read)


def test_short_writes_lose_nothing(source: Path, out: Path) -> None:
    whole = convert(source, out)
    assert convert_on(Short(), source, out, force=True).sha256 == whole.sha256


def test_a_fault_at_any_operation_leaves_nothing_but_what_it_says(source: Path, out: Path) -> None:
    counting = Counting()
    convert_on(counting, source, out)
    whole = out.read_bytes()
    out.unlink()
    renamed = counting.done.index("link") + 1
    for number in places(counting.done, renamed):
        with pytest.raises(
            OutputError, match=r"cannot write .*model\.gguf: Input/output error"
        ) as caught:
            convert_on(Faulty(number), source, out)
        kept = {".model.gguf.edgesppo-part", ".model.gguf.edgesppo-journal"}
        assert set(names(out)) == (kept if "tensors are kept in" in str(caught.value) else set())
        for name in names(out):
            (out.parent / name).unlink()
    with pytest.raises(OutputError):
        convert_on(Faulty(renamed + 1), source, out)  # the folder's fsync
    assert out.read_bytes() == whole


def test_a_fault_at_any_operation_keeps_the_file_that_was_there(source: Path, out: Path) -> None:
    out.write_bytes(b"precious")
    counting = Counting()
    convert_on(counting, source, out, force=True)
    for number in places(counting.done, counting.done.index("replace") + 1):
        out.write_bytes(b"precious")
        with pytest.raises(OutputError) as caught:
            convert_on(Faulty(number), source, out, force=True)
        assert out.read_bytes() == b"precious"
        kept = {".model.gguf.edgesppo-part", ".model.gguf.edgesppo-journal"}
        kept = kept if "tensors are kept in" in str(caught.value) else set()
        assert set(names(out)) == {"model.gguf"} | kept
        for name in kept:
            (out.parent / name).unlink()


@pytest.mark.parametrize("number", [1, 2, 9])
def test_a_full_disk_is_named_in_one_line(source: Path, out: Path, number: int) -> None:
    with pytest.raises(OutputError, match=r"no space left for .*model\.gguf; fr") as caught:
        convert_on(Faulty(number, errno.ENOSPC), source, out)
    assert "\n" not in str(caught.value)
    assert names(out) == []


def test_too_little_space_is_known_before_the_work(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 7))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match=r"it needs [\d,]+ bytes, but .* has 7 free"):
        convert(source, out)
    with pytest.raises(OutputError, match="choose another folder"):
        convert(source, out)
    monkeypatch.setenv("EDGESPPO_HOME", str(out.parent))
    with pytest.raises(OutputError, match="set EDGESPPO_HOME to a folder on another disk"):
        convert(source, out)
    assert names(out) == []


@pytest.mark.skipif(sys.platform != "linux", reason="a file size limit is enforced so on Linux")
def test_a_limit_of_the_system_is_an_output_error(source: Path, out: Path) -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            convert(source, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(out) == []


@pytest.mark.parametrize("number", [1, 2, 5, 12])
def test_ctrl_c_leaves_nothing(source: Path, out: Path, number: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert_on(Faulty(number, KeyboardInterrupt()), source, out)
    assert names(out) == []


def test_ctrl_c_while_progress_is_shown_leaves_nothing(source: Path, out: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done_bytes > 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, on_progress=interrupt)
    assert names(out) == []


def test_an_output_folder_that_does_not_exist(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"output folder .*nowhere does not exist; create it"):
        convert(source, tmp_path / "nowhere" / "model.gguf")
    assert not (tmp_path / "nowhere").exists()


def test_an_output_that_exists_needs_force(source: Path, out: Path) -> None:
    out.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"model\.gguf exists already; use --force"):
        convert(source, out)
    assert out.read_bytes() == b"precious"
    convert(source, out, force=True)
    assert out.read_bytes()[:4] == b"GGUF"


class Unlinked(FileSystem):
    """A file system without hard links."""

    def link(self, source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, f"no links for {source} or {target}")


@pytest.mark.parametrize("files", [FileSystem(), Unlinked()])
def test_an_output_that_appears_meanwhile_is_kept_and_so_is_the_new_one(
    source: Path, out: Path, files: FileSystem
) -> None:
    with pytest.raises(
        OutputError, match=r"another program meanwhile; .*13 of 13 tensors are kept in"
    ):
        convert_on(files, source, out, on_progress=lambda _: out.write_bytes(b"quicker") and None)
    assert out.read_bytes() == b"quicker"
    assert convert(source, out, force=True).resumed == 13
    assert out.read_bytes()[:4] == b"GGUF"
    assert names(out) == ["model.gguf"]


def test_one_that_appears_at_the_last_moment_is_kept(source: Path, out: Path) -> None:
    class Late(FileSystem):
        def link(self, source: Path, target: Path) -> None:
            target.write_bytes(b"quicker")
            super().link(source, target)

    with pytest.raises(OutputError, match="created by another program meanwhile"):
        convert_on(Late(), source, out)
    assert out.read_bytes() == b"quicker"


def test_without_links_the_output_appears_all_the_same(source: Path, out: Path) -> None:
    convert_on(Unlinked(), source, out)
    assert out.read_bytes()[:4] == b"GGUF"
    assert names(out) == ["model.gguf"]


def test_a_part_that_is_an_output_by_another_name_is_never_written_to(
    source: Path, out: Path
) -> None:
    """As a process that was killed between linking and unlinking leaves it."""
    convert(source, out)
    other = out.with_name("other.gguf")
    before = out.read_bytes()
    with suppress(KeyboardInterrupt):
        convert(source, other, on_progress=stop_at("reading back"))
    part = other.with_name(".other.gguf.edgesppo-part")
    part.unlink()
    part.hardlink_to(out)
    assert convert(source, other).resumed == 0
    assert out.read_bytes() == before
    assert not out.samefile(other)


def stop_at(stage: str) -> Callable[[Progress], None]:
    def interrupt(progress: Progress) -> None:
        if progress.stage == stage and progress.done_bytes > 0:
            raise KeyboardInterrupt

    return interrupt


def test_ctrl_c_stops_the_reading_back_at_once(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "BLOCK", 1000)
    counting = Counting()
    with pytest.raises(KeyboardInterrupt, match="13 of 13 tensors are kept"):
        convert_on(counting, source, out, on_progress=stop_at("reading back"))
    assert counting.done.count("read") < 10
    assert [thread for thread in threading.enumerate() if "edgesppo" in thread.name] == []
    assert convert(source, out).resumed == 13


@pytest.mark.parametrize("force", [False, True])
def test_an_output_that_is_no_file(source: Path, tmp_path: Path, force: bool) -> None:
    with pytest.raises(OutputError, match="is not a file"):
        convert(source, tmp_path, force=force)
    with pytest.raises(OutputError, match="is not a file"):
        convert(source, os.devnull, force=force)


def test_the_checkpoint_itself_is_never_the_output(source: Path, tmp_path: Path) -> None:
    weights = source / "model.safetensors"
    before = weights.read_bytes()
    (tmp_path / "alias.gguf").symlink_to(weights)
    for target in (weights, tmp_path / "alias.gguf"):
        with pytest.raises(OutputError, match="a file of the checkpoint itself"):
            convert(source, target, force=True)
    assert weights.read_bytes() == before


def test_an_output_beside_the_checkpoint_may_be_replaced(source: Path) -> None:
    for _ in range(2):
        result = convert(source, source / "model.gguf", force=True)
    result.output.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "q3"}, "unknown type 'q3'"),
        ({"type": None}, "unknown type None"),
        ({"layout": "best"}, "layout is 'best', expected one of edge, standard"),
        ({"n_threads": 0}, "is 0, expected a whole number from 1 to 1024"),
        ({"n_threads": "2"}, "is '2', expected a whole number"),
        ({"n_threads": True}, "is True, expected a whole number"),
        ({"threads": 2}, "has no argument 'threads' .did you mean n_threads"),
        ({"force": "no"}, "is 'no', expected True or False"),
        ({"keep": 1}, "is 1, expected True or False"),
        ({"imatrix": 5}, "is 5, expected a path"),
        ({"on_progress": 3}, "on_progress is 3, expected a function, or None"),
        ({"adapters": "my-lora"}, r"adapters \(--adapter\) is 'my-lora', expected a list of"),
        ({"tensor_types": "attn_v=q8_0"}, "is 'attn_v=q8_0', expected a list of texts"),
        ({"tensor_types": [3]}, "expected a list of texts"),
    ],
)
def test_an_option_that_makes_no_sense(
    source: Path, out: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        convert(source, out, **options)
    assert names(out) == []


def two_tensors() -> FilePlan:
    first = TensorInfo("first", (1, 3), GGMLQuantizationType.F32, 12)
    return plan_file(KEYS, [first, TensorInfo("second", (2,), GGMLQuantizationType.F16, 4)])


FIRST = np.array([1, 2, 3], np.float32).tobytes()
SECOND = np.array([4, 5], np.float16).tobytes()
KEYS = [
    KeyValue("general.architecture", GGUFValueType.STRING, "gemma2"),
    KeyValue("a.flag", GGUFValueType.BOOL, True),
    KeyValue("a.number", GGUFValueType.UINT32, 7),
    KeyValue("a.list", GGUFValueType.FLOAT32, [0.5, -1.0]),
    KeyValue("a.words", GGUFValueType.STRING, ["\u00e9", ""]),
]


def test_the_output_refuses_calls_out_of_turn(out: Path) -> None:
    with Output(out, two_tensors(), "this", FileSystem()) as output:
        with pytest.raises(ValueError, match="needs only 12"):
            output.write("first", bytes(13))
        output.write("first", FIRST[:4])
        with pytest.raises(ValueError, match="expected data of first, not of second"):
            output.write("second", SECOND)
        with pytest.raises(ValueError, match="first has not been written"):
            output.complete()
        output.write("first", FIRST[4:])
        with pytest.raises(ValueError, match="first is complete already"):
            output.write("first", FIRST)
        with pytest.raises(ValueError, match="second has not been written"):
            output.complete()
        output.write("second", SECOND)
        with pytest.raises(ValueError, match="the head has 3 bytes"):
            output.complete(b"GGU")
    assert names(out) == []  # never committed


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_the_written_file_is_what_gguf_reads(out: Path, order: tuple[str, str]) -> None:
    data = {"first": FIRST, "second": SECOND}
    with Output(out, two_tensors(), "this", FileSystem()) as output:
        for name in order:
            output.write(name, data[name])
        output.complete()
        assert output.read_back() == hashlib.sha256(output.part.read_bytes()).hexdigest()
        output.commit(force=False)
    reader = GGUFReader(out)
    assert {key.key: reader.fields[key.key].contents() for key in KEYS} == {
        key.key: key.value for key in KEYS
    }
    assert [tensor.data.tolist() for tensor in reader.tensors] == [[[1, 2, 3]], [4, 5]]
    assert [list(tensor.shape) for tensor in reader.tensors] == [[3, 1], [2]]
    assert names(out) == ["model.gguf"]


def test_what_lies_in_the_journals_place_is_named(source: Path, out: Path) -> None:
    journal = out.with_name(f".{out.name}.edgesppo-journal")
    journal.mkdir()
    with pytest.raises(OutputError, match=f"{re.escape(str(journal))} is not a regular file"):
        convert(source, out)


def test_standard_output_is_no_file(source: Path) -> None:
    result = CliRunner().invoke(main, ["convert", str(source), "-o", "-"])
    assert result.exit_code == 2
    assert "expected -o FILE" in result.stderr
