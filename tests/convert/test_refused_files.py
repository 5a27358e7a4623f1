"""Files, shards, indexes and headers that must be refused: on one line, and no file is left."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadCheckpoint, ModelNotFound, UnsupportedCheckpoint
from edgesppo_convert import convert
from tests.support.bad_checkpoint import (
    INDEX,
    NORM,
    SHARD,
    Header,
    change_header,
    change_json,
    refused,
)
from tests.support.checkpoints import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", ModelNotFound, "no checkpoint folder", "nothing")


def test_only_a_pickle(single: Path) -> None:
    (single / "model.safetensors").rename(single / "pytorch_model.bin")
    refused(single, UnsupportedCheckpoint, "pytorch_model.bin", "safetensors", "save_pretrained")


def test_no_weights_at_all(single: Path) -> None:
    (single / "model.safetensors").unlink()
    refused(single, BadCheckpoint, "neither model.safetensors nor model.safetensors.index.json")


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / SHARD).unlink()
    refused(sharded, BadCheckpoint, SHARD, "missing")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_shard(sharded: Path, keep: int) -> None:
    data = (sharded / SHARD).read_bytes()
    (sharded / SHARD).write_bytes(data[:keep])
    refused(sharded, BadCheckpoint, SHARD, "bytes")


def test_a_shard_that_is_too_long(sharded: Path) -> None:
    with (sharded / SHARD).open("ab") as file:
        file.write(b"\0")
    refused(sharded, BadCheckpoint, SHARD, "longer than its header says")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "\\\\host\\share\\model.safetensors",
        "a\nb.safetensors",
        "a\0.safetensors",
        "model.bin",
        "..",
        "",
        7,
    ],
)
def test_an_index_that_leads_out_of_the_folder(sharded: Path, name: object) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: name}))
    refused(sharded, BadCheckpoint, INDEX, NORM)


def test_an_index_that_places_a_tensor_elsewhere(sharded: Path) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: SHARD}))
    refused(sharded, BadCheckpoint, NORM, "model-00003-of-00003.safetensors", SHARD)


def test_an_index_that_names_a_tensor_no_shard_has(sharded: Path) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].update({"extra.weight": SHARD}))
    refused(sharded, BadCheckpoint, SHARD, "has no tensor 'extra.weight'")


def test_an_index_that_forgets_a_tensor(sharded: Path) -> None:
    change_json(sharded / INDEX, lambda index: index["weight_map"].pop(NORM))
    refused(sharded, BadCheckpoint, NORM, "no shard")


def test_an_index_without_a_map(sharded: Path) -> None:
    write_json(sharded / INDEX, {"weight_map": []})
    refused(sharded, BadCheckpoint, INDEX, "'weight_map' is []", "expected an object")


BAD_HEADERS: dict[str, tuple[Callable[[Header], object], str]] = {
    "overlap": (lambda h: _shift(h, -2), "overlaps another"),
    "hole": (lambda h: _shift(h, 2), "leaves a gap"),
    "beyond the end": (lambda h: h[NORM].update(shape=[300]) or _grow(h, 24), "truncated"),
    "not its size": (lambda h: h[NORM].update(shape=[289]), "takes 578 bytes"),
    "backwards": (lambda h: h[NORM]["data_offsets"].reverse(), "its offsets are"),
    "three offsets": (lambda h: h[NORM]["data_offsets"].append(0), "its offsets are"),
    "no offsets": (lambda h: h[NORM].pop("data_offsets"), "has no 'data_offsets'"),
    "negative": (lambda h: h[NORM].update(data_offsets=[-4, -2]), "expected a list of at most"),
    "huge": (lambda h: h[NORM].update(shape=[1 << 60]), "expected a list of at most"),
    "true": (lambda h: h[NORM].update(shape=[True, 288]), "expected a list of at most"),
    "no dtype": (lambda h: h[NORM].pop("dtype"), "has no 'dtype'"),
    "no object": (lambda h: h.update({NORM: 3}), "expected an object"),
    "no name": (lambda h: h.update({"": h.pop(NORM)}), "is not a tensor name"),
}


def _shift(header: Header, by: int) -> None:
    """Move the offsets of the last tensor, the norm."""
    header[NORM]["data_offsets"] = [offset + by for offset in header[NORM]["data_offsets"]]


def _grow(header: Header, by: int) -> None:
    header[NORM]["data_offsets"][1] += by


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_header_that_breaks_the_formats_rules(single: Path, name: str) -> None:
    change, words = BAD_HEADERS[name]
    change_header(single / "model.safetensors", change)
    refused(single, BadCheckpoint, "model.safetensors", words)


@pytest.mark.parametrize("length", [100_000_001, (1 << 64) - 1])
def test_a_header_longer_than_the_format_allows(single: Path, length: int) -> None:
    with (single / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", length))
    refused(single, BadCheckpoint, "model.safetensors", f"its header has {length:,} bytes")


def test_a_tensor_that_stands_twice_in_a_header(single: Path) -> None:
    path = single / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    twice = data[8 : 7 + length] + b', "model.norm.weight": {}}'
    path.write_bytes(struct.pack("<Q", len(twice)) + twice + data[8 + length :])
    refused(single, BadCheckpoint, "model.safetensors", "'model.norm.weight' appears twice")


def test_no_tokenizer(single: Path) -> None:
    (single / "tokenizer.model").unlink()
    refused(single, BadCheckpoint, "has no tokenizer.model")


def test_a_link_to_nothing_is_an_incomplete_download(single: Path) -> None:
    (single / "tokenizer_config.json").unlink()
    (single / "tokenizer_config.json").symlink_to("../blobs/not-yet")
    refused(single, BadCheckpoint, "has no tokenizer_config.json", "download")


def test_a_cache_of_symbolic_links_is_read(single: Path, tmp_path: Path) -> None:
    before = convert(single, tmp_path / "before.gguf")
    repository = tmp_path / "models--someone--source"  # as the Hugging Face cache lays it out
    snapshot = repository / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    blobs = single.rename(repository / "blobs")
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    assert convert(snapshot, tmp_path / "after.gguf").sha256 == before.sha256
