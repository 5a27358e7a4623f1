"""Every reader of a file that we did not just write takes mutated ones, within its bounds.

A sample by default; EDGESPPO_LONG=1 tries 20,000 inputs a reader, EDGESPPO_FUZZ=N any number.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgesppo import schema
from edgesppo.gguf import gemma2, metadata, reader
from edgesppo.hub import repository
from edgesppo.hub.license_claims import recognise
from edgesppo.hub.model_card import read_card
from edgesppo.lockfile import toml
from edgesppo.sampling.params import valid_values
from edgesppo.sessions import file as chat_file
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.kv_snapshot import Binding, Snapshot
from edgesppo.system import jsonl
from edgesppo.system.sanitize import printable
from edgesppo.system.text_input import read_text
from edgesppo.tuning import settings_cache
from edgesppo_convert.gemma2.architecture import read_hparams
from edgesppo_convert.gemma2.sentencepiece import read_pieces
from edgesppo_convert.quant.imatrix import read_importance
from edgesppo_convert.source.json_reader import MAX_JSON, parse_json, read_bytes
from edgesppo_convert.source.safetensors import Shard
from tests.support import checkpoints, imatrix_files
from tests.support import gguf_maker as make
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forked workers")
N_INPUTS = int(os.environ.get("EDGESPPO_FUZZ", "20000" if LONG else "60"))
BINDING = Binding("model", "library", "settings")
MODEL = {"name": "demo", "path": "/m.gguf", "fingerprint": "f", "n_ctx": 512}
HEAD = {"edgesppo": "chat", "version": 1, "by": MODEL, "system": "s", "sampling": {"top_p": 0.5}}
TURN = {"turn": 1, "user": "é?", "assistant": "yes", "ids": [1, 2], "left_out": 0}
EVENTS = [HEAD, TURN, {**TURN, "turn": 2}, {"asked": "so?"}, {"keep": 1}, {"by": MODEL}]
LOCK = """\
version = 1

[[model]]
name = "mine"
kind = "checkpoint"
description = "a model"
repository = "me/mine"
revision = "0123456789012345678901234567890123456789"
license = "gemma"

[[model.file]]
path = "config.json"
size = 842
sha256 = "0123456789012345678901234567890123456789012345678901234567890123"
"""
CARD = """\
---
license: gemma
base_model: google/gemma-2-9b-it
datasets: [openbmb/UltraFeedback]
---
- License: Apache-2.0
Finetuned from model: google/gemma-2-9b-it
"""
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,3}$"}, "b": {"$ref": "#/$defs/n"}},
    "required": ["a"],
    "$defs": {"n": {"type": "integer", "minimum": 3, "maximum": 500}},
}
TUNING = {"n_threads": 1, "n_threads_batch": 2, "row_costs": [1.0, 2.0], "prefill_tps": 1.5}


def _gguf(path: Path) -> None:
    metadata.describe(gemma2.load_summary(path))


def _any_gguf(path: Path) -> None:
    reader.read(path)
    reader.peek(path.read_bytes()[:500], 500)


def _chat(path: Path) -> None:
    data = chat_file.read(path)
    transcript, (end, _) = chat_file.parse(data)
    chat_file.is_torn(data, end)
    if transcript is not None:
        valid_values(transcript.sampling)
        transcript.messages("f")


def _events(path: Path) -> None:
    """The lines of the file with the checksums that they should have."""
    data, crc = b"", 0
    for line in path.read_bytes().splitlines():
        crc = zlib.crc32(line, crc)
        data += b"%08x %s\n" % (crc, line)
    path.write_bytes(data)
    _chat(path)


def _kv(path: Path) -> None:
    found = kv_snapshot.read(path, BINDING)
    assert found is None or len(found.ids) == 3


def _config(path: Path) -> None:
    read_hparams(parse_json(read_bytes(path, MAX_JSON), str(path)))


def _schema(path: Path) -> None:
    schema.grammar(schema.parse(path.read_bytes()[: schema.MAX_BYTES + 1], str(path)))


def _hub(path: Path) -> None:
    data = path.read_bytes()
    for parse in (repository.parse_listing, repository.parse_commit):
        try:
            parse(data)
        except ValueError:
            continue


def _text(path: Path) -> None:
    assert "\x1b" not in printable(read_text(str(path)))


def _card(path: Path) -> None:
    read_card(path.read_bytes())
    recognise(path.read_text("utf-8", "replace"))


def _journal(path: Path) -> None:
    [*jsonl.read_valid(path.read_bytes())]
    jsonl.is_unfinished(path.read_bytes())


def _seeds(folder: Path) -> dict[str, tuple[Any, list[bytes]]]:
    """Reader -> what reads a file, and sound files."""
    kv = folder / "sound.kv"
    kv_snapshot.write(kv, BINDING, Snapshot([1, 2, 3], memoryview(bytes(64)), (3, 0.5)))
    shape = checkpoints.SHAPES["tiny"]
    sums = {"blk.0.attn_q.weight": np.ones(8, np.float32)}
    imatrix = [
        imatrix_files.write_dat(folder / "sound.dat", sums),
        imatrix_files.write_gguf(folder / "sound.gguf", sums),
    ]
    lines = [json.dumps(event).encode() for event in EVENTS]
    listing = [{"type": "file", "path": "a.json", "size": 3, "oid": "0" * 40}]
    shard = checkpoints.header([("a", (2, 2))], "f32") + bytes(16)
    commit = json.dumps({"sha": "0" * 40, "cardData": {"license": "gemma"}})
    return {
        "gguf": (_gguf, [make.model(more_tokens=["é".encode()])]),
        "any gguf": (_any_gguf, [make.file()]),
        "lock": (toml.read, [LOCK.encode()]),
        "chat": (_chat, [jsonl.encode(EVENTS)[0]]),
        "events": (_events, [b"\n".join(lines)]),
        "kv": (_kv, [kv.read_bytes()]),
        "tuning": (settings_cache._read, [json.dumps(TUNING).encode()]),
        "config": (_config, [json.dumps(checkpoints.config(shape)).encode()]),
        "tokenizer": (
            lambda path: read_pieces(path.read_bytes(), str(path)),
            [checkpoints.tokenizer_model(checkpoints.pieces(600))],
        ),
        "shard": (lambda path: Shard(path).close(), [shard]),
        "imatrix": (read_importance, [path.read_bytes() for path in imatrix]),
        "schema": (_schema, [json.dumps(SCHEMA).encode()]),
        "hub": (
            _hub,
            [json.dumps(listing).encode(), commit.encode()],
        ),
        "card": (_card, [CARD.encode()]),
        "text": (_text, ["Why? é 👩‍💻 می‌خواهم\n".encode(), "x".encode("utf-16")]),
        "lines": (_journal, [jsonl.encode(EVENTS)[0]]),
    }


READERS = (
    *("gguf", "any gguf", "lock", "chat", "events", "kv", "tuning", "config", "tokenizer"),
    *("shard", "imatrix", "schema", "hub", "card", "text", "lines"),
)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_any_file(name: str, tmp_path: Path) -> None:
    from tests.support import fuzz  # needs what only systems with fork have

    read, seeds = _seeds(tmp_path)[name]
    found = fuzz.faults(fuzz.Reader(read, seeds), N_INPUTS, tmp_path)
    assert found == []
