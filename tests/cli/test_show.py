"""`edgesppo show` prints a card of any valid file, however odd or hostile its metadata."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import struct
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from edgesppo.cli import main
from edgesppo.errors import BadModelFile
from edgesppo.gguf import gemma2
from edgesppo.gguf.metadata import describe
from edgesppo_convert import convert
from tests.support import gguf_maker as make
from tests.support.checkpoints import CARD, SMALL, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

TRANSCRIPT = """\
Gemma-2-9B-It-SPPO-Iter3
  file        FILE
  size        78.8 kB
  sha256      HASH
  model       0.1 M parameters, 1 layers, 64 wide, 2 heads, 1 of them for keys
              and values
  training    Self-Play Preference Optimization (SPPO), iteration 3
  base model  google/gemma-2-9b-it
  data sets   openbmb/UltraFeedback
  written by  edgesppo 0.1.0
  weights     7.75 bits per weight
              Q8_0      3 tensors   47.3 kB
              Q5_0      5 tensors   12.7 kB
              F32       5 tensors    1.3 kB
  context     256 tokens, every other layer a window of 64
  soft-caps   attention 50, output 30
  tokenizer   llama, 600 tokens: 107 control, 1 unknown, 64 user-defined, 256
              byte, 172 normal
              token 2 begins a text, 1 or 107 ends it; with a chat template
  licence     gemma, https://ai.google.dev/gemma/terms; its card's text says
              Apache-2.0: follow the stricter
  made from   README.md
              HASH
  made from   config.json
              HASH
  made from   generation_config.json
              HASH
  made from   tokenizer.model
              HASH
  made from   tokenizer_config.json
              HASH
  header of   model.safetensors
              HASH
  weights of  model.safetensors
              HASH
"""


def show(*words: object) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, words)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "Gemma-2-9B-It-SPPO-Iter3"
    write_checkpoint(folder, SMALL)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    convert(folder, folder.parent / "out.gguf")
    return folder.parent / "out.gguf"


def test_the_whole_card(model: Path) -> None:
    result = show(model, "--hash")
    assert result.exit_code == 0
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert f"  sha256      {digest}\n" in result.stdout
    text = re.sub(r"[0-9a-f]{64}", "HASH", result.stdout.replace(str(model), "FILE"))
    assert text == TRANSCRIPT
    assert result.stderr == ""


def test_json_has_the_same_figures(model: Path) -> None:
    found = json.loads(show(model, "--json").stdout)
    assert found["lineage"]["iteration"] == 3
    assert found["license"]["header"] == "gemma"
    assert found["license"]["in_text"] == "Apache-2.0"
    assert sum(entry["tensors"] for entry in found["types"].values()) == 13
    assert found["bytes"] == model.stat().st_size
    assert "sha256" not in found


def test_a_file_that_says_nothing_has_a_card_too(tmp_path: Path) -> None:
    path = tmp_path / "bare.gguf"
    path.write_bytes(make.file())
    result = show(path)
    assert result.exit_code == 0
    assert result.stdout.startswith("bare.gguf\n")
    assert "the file names none" in result.stdout
    assert "unknown layers" in result.stdout


def test_texts_cannot_reach_the_terminal_or_flood_it(tmp_path: Path) -> None:
    evil = b"x\x1b[2J\r\x07\xe2\x80\xae" + b"y" * 100_000
    keys = [
        *make.sound_keys(),
        *(
            make.key(name, make.STRING, make.string(evil))
            for name in (b"general.name", b"general.license", b"general.base_model.0.name")
        ),
        make.key(b"general.base_model.count", make.U32, struct.pack("<I", 2**32 - 1)),
        make.key(
            b"edgesppo.source.files", make.ARRAY, make.array(make.STRING, [make.string(evil)] * 64)
        ),
    ]
    path = tmp_path / "evil.gguf"
    path.write_bytes(make.file(keys))
    result = show(path)
    assert result.exit_code == 0
    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert len(result.stdout) < 20_000
    assert json.loads(show(path, "--json").stdout)["model"]["layers"] is None


def test_no_mutation_of_a_sound_file_breaks_the_card(tmp_path: Path) -> None:
    keys = [
        make.key(b"general.name", make.STRING, make.string(b"a name")),
        make.key(b"general.version", make.STRING, make.string(b"Iter3")),
        make.key(b"gemma2.block_count", make.U32, struct.pack("<I", 2)),
        make.key(b"edgesppo.source.files", make.ARRAY, make.array(make.U32, [b"1234"])),
    ]
    whole, rng = make.file([*make.sound_keys(), *keys]), random.Random(7)
    path = tmp_path / "model.gguf"
    shown = 0
    for _ in range(1_500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(24, len(data) - 400)] = rng.choice([0, 1, 0x7F, 0xFF, 10, 27])
        path.write_bytes(data)
        try:
            json.dumps(describe(gemma2.load_summary(path)))
        except BadModelFile:
            continue
        shown += 1
    assert shown > 100


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04")
    result = show(path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"edgesppo: {path} is not a GGUF file")
    assert result.stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="no file has such a name there")
def test_a_files_name_is_printed_on_one_line(tmp_path: Path, demo_gguf: Path) -> None:
    path = tmp_path / "a\nb.gguf"
    path.symlink_to(demo_gguf)
    result = CliRunner().invoke(main, ["show", str(path)])
    assert result.exit_code == 0
    assert "\nb.gguf" not in result.stdout
