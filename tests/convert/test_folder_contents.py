"""A folder that is no complete checkpoint is answered with what is in it, and what to type."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.errors import BadCheckpoint, BadModelFile, DownloadError
from edgesppo.gguf import gemma2
from edgesppo.hub.repository import Repository
from edgesppo.store.resolve import _choose, new_entry
from edgesppo.system.content import mistaken_for
from edgesppo_convert import look_ahead
from edgesppo_convert.source.folder_contents import missing
from edgesppo_convert.source.safetensors import Shard
from tests.support.adapters import random_factors, write_adapter, write_tensors
from tests.support.checkpoints import SHAPES, resized, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = resized(SHAPES["tiny"], layers=1)
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    + b"\nsize 4241003\n"
)
PAGE = b"\n<!DOCTYPE html>\n<html lang=en><head><title>Log in</title>"
ENTRY = new_entry(Repository("x", "y", "main"), None)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("whole") / "whole", SHAPE)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "given")


def answer(folder: Path) -> str:
    """What is said of a folder: one line, of an error of checkpoints."""
    with pytest.raises(BadCheckpoint) as caught:
        look_ahead(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (POINTER, "a Git LFS pointer to a file of 4,241,003 bytes.*git lfs pull"),
        (POINTER[:42], "a Git LFS pointer, which git did not fetch"),
        (PAGE, "a web page.*edgesppo pull OWNER/NAME"),
        (b"<html>", "a web page"),
        (b"\xef\xbb\xbf<HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error>', "a web page"),
        (b'{"error":"Repository not found"}', "a server's answer"),
        (b"Access to model google/gemma-2-9b-it is restricted.", "a server's answer"),
        (b"Invalid username or password.", "a server's answer"),
        (b"Entry not found", "a server's answer"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x80\x02}q", "a pickle"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
    ],
)
def test_a_file_is_known_by_how_it_begins(
    folder: Path, tmp_path: Path, head: bytes, words: str
) -> None:
    for name in ("config.json", "tokenizer.model", "tokenizer_config.json", "model.safetensors"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(head)
        with pytest.raises(BadCheckpoint, match=f"{name}.* is {words}"):
            look_ahead(folder)
        (folder / name).write_bytes(before)
    (tmp_path / "m.gguf").write_bytes(head)
    with pytest.raises(BadModelFile, match=words):
        gemma2.load_summary(tmp_path / "m.gguf")


@pytest.mark.parametrize("head", [b"", b"{}", b"{\n", b"GG", b"\x0a\x0b\x0a\x05<pad>", b"\0" * 99])
def test_other_files_are_not_mistaken(head: bytes) -> None:
    assert mistaken_for(head) is None


@pytest.mark.parametrize("length", [0x0280, 0x8B1F])
def test_a_header_whose_length_looks_like_another_file_is_read(tmp_path: Path, length: int) -> None:
    header = b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'.ljust(length)
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header + bytes(4))
    shard = Shard(path)
    shard.close()
    assert list(shard.tensors) == ["a"]


def test_a_pointer_in_place_of_one_shard_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "sharded", SHAPE, shards=2)
    (folder / "model-00002-of-00002.safetensors").write_bytes(POINTER)
    assert "model-00002-of-00002.safetensors is a Git LFS pointer" in answer(folder)


def test_missing_shards_are_counted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "sharded", SHAPE, shards=3)
    for number in (1, 3):
        (folder / f"model-0000{number}-of-00003.safetensors").unlink()
    assert "2 of 3 shards are missing, model-00001-of-00003.safetensors first" in answer(folder)


def _move_inside(folder: Path, name: str) -> Path:
    """Move a folder into a new one under this name; the new one."""
    outer = folder.with_name("outer")
    (outer / name).parent.mkdir(parents=True)
    folder.rename(outer / name)
    return outer


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("checkpoint-500", "a trainer's output; the model is in checkpoint-500"),
        ("final", "a folder above the model; the model is in final"),
        (f"snapshots/{COMMIT}", f"a folder of the hub's cache; the model is in {COMMIT}"),
        (
            f"models--google--gemma-2-9b-it/snapshots/{COMMIT}",
            "the hub's cache, with models--google--gemma-2-9b-it",
        ),
    ],
)
def test_a_folder_above_the_model_names_the_models(folder: Path, inner: str, words: str) -> None:
    outer = _move_inside(folder, inner)
    message = answer(outer)
    assert words in message
    assert f"edgesppo convert {outer / inner} -o OUT.gguf" in message


def test_the_last_of_a_trainers_checkpoints_is_named(folder: Path) -> None:
    outer = _move_inside(folder, "checkpoint-900")
    shutil.copytree(outer / "checkpoint-900", outer / "checkpoint-1000")
    (outer / "trainer_state.json").write_text("{}")
    assert f"edgesppo convert {outer / 'checkpoint-1000'} -o" in answer(outer)


def test_the_snapshot_that_main_is_now_is_named(folder: Path) -> None:
    outer = _move_inside(folder, f"snapshots/{COMMIT}")
    shutil.copytree(outer / "snapshots" / COMMIT, outer / "snapshots" / ("f" * 40))
    (outer / "refs").mkdir()
    (outer / "refs" / "main").write_text(COMMIT)
    assert f"snapshots/{COMMIT} -o" in answer(outer)
    assert f"snapshots/{COMMIT} -o" in answer(outer / "snapshots")


def test_a_cache_without_a_whole_snapshot_is_incomplete(tmp_path: Path) -> None:
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    assert "not complete: it is a folder of the hub's cache" in answer(tmp_path / "models--a--b")


def test_a_trainers_adapter_is_named(tmp_path: Path) -> None:
    factors = random_factors({"model.layers.0.self_attn.q_proj": (256, 256)}, 4)
    write_adapter(tmp_path / "run" / "checkpoint-20", factors)
    message = answer(tmp_path / "run")
    assert "it is a folder above an adapter, checkpoint-20" in message
    assert f"--adapter {tmp_path / 'run' / 'checkpoint-20'}" in message


def test_a_gguf_in_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "it's.gguf").write_bytes(b"GGUF")
    message = answer(tmp_path)
    assert "it holds the GGUF file it's.gguf, already converted: edgesppo chat '" in message


def _begin_download(folder: Path) -> None:
    (folder / ".cache" / "huggingface" / "download").mkdir(parents=True)
    partial = folder / ".cache" / "huggingface" / "download" / "model.safetensors.1f.incomplete"
    (folder / "model.safetensors").rename(partial)


def _pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def _rename(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_rename("pytorch_model.bin"), "only as pytorch_model.bin, a pickle"),
        (_rename("pytorch_model-00001-of-00002.bin"), "pytorch_model-00001-of-00002.bin"),
        (_rename("consolidated.00.pth"), "only as consolidated.00.pth, a pickle"),
        (_rename("model.pt"), "only as model.pt, a pickle"),
        (_rename("tf_model.h5"), "only as tf_model.h5, of TensorFlow"),
        (_rename("flax_model.msgpack"), "only as flax_model.msgpack, of Flax"),
        (_rename("gemma.safetensors"), "as gemma.safetensors; give them that name: mv "),
        (_rename("model-00001-of-00002.safetensors"), "no model.safetensors.index.json; copy"),
        (_rename("model-00001-of-00001.safetensors"), "-00001.safetensors; give them that name: "),
        (_rename("model.safetensors.incomplete"), "is an unfinished download"),
        (_rename("model.safetensors.part"), "is an unfinished download"),
        (_rename("model.onnx"), "only as model.onnx, of ONNX"),
        (_begin_download, "download/model.safetensors.1f.incomplete is an unfinished download"),
        (_pipe, "model.safetensors is a pipe or a device; expected a file"),
        (lambda f: (f / "config.json").unlink(), "has no config.json; is the download complete?"),
        (lambda f: [p.unlink() for p in f.iterdir()], "is no checkpoint: it is empty"),
        (
            lambda f: [p.rename(p.with_suffix(".x")) for p in f.iterdir()],
            "is no checkpoint: it holds",
        ),
    ],
)
def test_weights_of_another_name_or_form_are_named(
    folder: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(folder)
    assert words in answer(folder)


def test_safetensors_that_transformers_did_not_name_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tensors = {"tok_embeddings.weight": next(iter(random_factors({"x": (2, 2)}, 1).values()))}
    write_tensors(folder / "consolidated.safetensors", tensors)
    assert "not named as transformers names them, such as 'tok_embeddings.weight'" in answer(folder)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("F64", "64-bit floats; load the model with transformers"),
        ("I8", "8-bit integers of a quantised model; use the unquantised checkpoint"),
        ("U8", "8-bit integers"),
        ("I32", "these are integers of a quantised model"),
        ("F8_E4M3", "8-bit floats of a quantised model"),
        ("F8_E5M2", "8-bit floats"),
        ("F4", "4-bit floats"),
    ],
)
def test_weights_of_another_type_are_named(folder: Path, dtype: str, words: str) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(_with_header(data, dtype))
    message = answer(folder)
    assert f"is stored as '{dtype}'" in message
    assert words in message


def _with_header(data: bytes, dtype: str) -> bytes:
    start = 8 + int.from_bytes(data[:8], "little")
    header = data[8:start].replace(b'"BF16"', f'"{dtype}"'.encode(), 1)
    return len(header).to_bytes(8, "little") + header + data[start:]


def test_an_adapter_is_named_in_a_repository_of_the_hub() -> None:
    with pytest.raises(DownloadError, match=r"x/y is an adapter.*--convert --adapter DIR"):
        _choose(["adapter_config.json", "adapter_model.safetensors", "config.json"], ENTRY, None)
    with pytest.raises(DownloadError, match="x/y has its weights only as a pickle"):
        _choose(["config.json", "pytorch_model.bin"], ENTRY, None)
    message = str(missing("x/y@1", ["adapter_config.json"], "config.json", None))
    assert "--adapter DIR -o OUT.gguf, where DIR is the folder that you download it to" in message


def test_sharded_parts_of_a_trainer_say_how_to_join_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "zero_to_fp32.py").write_text("")
    assert f"python {tmp_path}/zero_to_fp32.py {tmp_path} OUT" in answer(tmp_path)
    (tmp_path / "zero_to_fp32.py").unlink()
    (tmp_path / "pytorch_model_fsdp_0").mkdir()
    assert f"accelerate merge-weights {tmp_path} OUT" in answer(tmp_path)


def test_one_file_of_a_checkpoint_given_to_run_names_its_folder(folder: Path) -> None:
    found = CliRunner().invoke(main, ["run", str(folder / "model.safetensors"), "hi"])
    assert found.exit_code == 1
    assert "is one file of a checkpoint" in found.stderr
    assert f"edgesppo chat {folder}\n" in found.stderr


def test_a_json_file_of_ones_own_is_called_no_file_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "rivers.json").write_text('{"type": "object"}')
    found = CliRunner().invoke(main, ["show", str(tmp_path / "rivers.json")])
    assert found.exit_code == 1
    assert "rivers.json is not a GGUF file" in found.stderr
    assert "checkpoint" not in found.stderr
