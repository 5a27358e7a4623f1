"""The file records where it comes from: nothing private, and always the same keys."""

from __future__ import annotations

import getpass
import hashlib
import os
import random
import shutil
import socket
import time
from pathlib import Path

import pytest

from edgesppo import __version__
from edgesppo.hub.model_card import Card, parse_card
from edgesppo_convert import convert
from edgesppo_convert.plan import provenance
from edgesppo_convert.source.checkpoint import Checkpoint
from tests.support.checkpoints import SMALL, write_checkpoint
from tests.support.same_model import keys_of

REVISION = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
license: gemma  # terms of use
language:
- en
datasets:
  - openbmb/UltraFeedback
pipeline_tag: text-generation
model-index:
- name: x
  results:
  - task: {type: text}
---
Self-Play Preference Optimization for Language Model Alignment

# Gemma-2-9B-It-SPPO-Iter3

### Model Description

- Model type: A 9B parameter GPT-like model fine-tuned on synthetic datasets.
- License: Apache-2.0
- Finetuned from model: [google/gemma-2-9b-it](https://huggingface.co/google/gemma-2-9b-it)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint with a model card, laid out as in the Hugging Face cache."""
    repository = tmp_path / "models--UCLA-AGI--Gemma-2-9B-It-SPPO-Iter3"
    plain = write_checkpoint(tmp_path / "plain", SMALL)
    (plain / "README.md").write_text(CARD, encoding="utf-8")
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    for file in plain.iterdir():
        data = file.read_bytes()
        large = file.suffix in (".safetensors", ".model")
        name = (hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()
        (repository / "blobs" / name).write_bytes(data)
        (snapshot / file.name).symlink_to(f"../../blobs/{name}")
    return snapshot


def test_the_file_says_where_it_comes_from(source: Path, tmp_path: Path) -> None:
    keys = keys_of(convert(source, tmp_path / "out.gguf").output)
    expected = {
        "general.name": "Gemma-2-9B-It-SPPO-Iter3",
        "general.basename": "Gemma-2",
        "general.finetune": "9b-It-SPPO",  # 9B is no size label of so small a model
        "general.version": "Iter3",
        "general.organization": "UCLA-AGI",
        "general.quantized_by": f"edgesppo {__version__}",
        "general.license": "gemma",
        "general.license.link": "https://ai.google.dev/gemma/terms",
        "edgesppo.license.in_text": "Apache-2.0",
        "general.source.url": "https://huggingface.co/UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3/tree/"
        + REVISION,
        "general.source.repo_url": "https://huggingface.co/UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3",
        "edgesppo.source.revision": REVISION,
        "general.base_model.count": 1,
        "general.base_model.0.name": "gemma-2-9b-it",
        "general.base_model.0.organization": "google",
        "general.base_model.0.repo_url": "https://huggingface.co/google/gemma-2-9b-it",
        "general.dataset.count": 1,
        "general.dataset.0.name": "UltraFeedback",
        "general.dataset.0.organization": "openbmb",
        "general.dataset.0.repo_url": "https://huggingface.co/datasets/openbmb/UltraFeedback",
    }
    assert {key: keys.get(key) for key in expected} == expected


def test_what_the_card_leaves_out_comes_from_the_lock(source: Path, tmp_path: Path) -> None:
    (source / "README.md").unlink()
    keys = keys_of(convert(source, tmp_path / "out.gguf").output)
    expected = {
        "general.license": "gemma",
        "general.license.link": "https://ai.google.dev/gemma/terms",
        "edgesppo.license.in_text": "Apache-2.0",
        "general.base_model.0.name": "gemma-2-9b-it",
        "general.dataset.0.name": "UltraFeedback",
        "edgesppo.lineage.method": "SPPO",
        "edgesppo.lineage.iteration": 3,
        "edgesppo.lineage.paper": "https://arxiv.org/abs/2405.00675",
    }
    assert {key: keys.get(key) for key in expected} == expected


def test_what_the_card_claims_is_not_replaced_by_the_lock(source: Path, tmp_path: Path) -> None:
    (source / "README.md").unlink()
    (source / "README.md").write_text("---\nlicense: mit\nbase_model: a/b\n---\n", encoding="utf-8")
    keys = keys_of(convert(source, tmp_path / "out.gguf").output)
    assert keys["general.license"] == "mit"
    assert "general.license.link" not in keys
    assert keys["general.base_model.0.name"] == "b"


def test_the_inputs_hashes_are_right(source: Path, tmp_path: Path) -> None:
    keys = keys_of(convert(source, tmp_path / "out.gguf").output)

    def sha256(name: str) -> str:
        return hashlib.sha256((source / name).read_bytes()).hexdigest()

    small = ["README.md", "config.json", "generation_config.json", "tokenizer.model"]
    small.append("tokenizer_config.json")
    assert keys["edgesppo.source.files"] == [f"{name} {sha256(name)}" for name in small]
    weights = (source / "model.safetensors").read_bytes()
    header = weights[8 : 8 + int.from_bytes(weights[:8], "little")]
    assert keys["edgesppo.source.weight_headers"] == [
        f"model.safetensors {hashlib.sha256(header).hexdigest()}"
    ]
    assert keys["edgesppo.source.weights"] == [f"model.safetensors {sha256('model.safetensors')}"]


def test_a_plain_folder_claims_nothing_that_it_does_not_know(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "my model", SMALL)
    keys = keys_of(convert(folder, tmp_path / "out.gguf").output)
    ours = {key for key in keys if key.startswith(("general.", "edgesppo."))}
    assert ours == {
        *("general.architecture", "general.type", "general.name", "general.quantized_by"),
        *("general.size_label", "general.quantization_version", "general.file_type"),
        *("edgesppo.source.files", "edgesppo.source.weight_headers", "edgesppo.source.weights"),
    }
    assert keys["general.name"] == "my model"


def test_the_name_of_the_9b_is_taken_apart(source: Path) -> None:
    """With the 9B's number of weights, so that 9B is taken as a size label, not as a name."""
    with Checkpoint(source) as checkpoint:
        found = {entry.key: entry.value for entry in provenance.collect(checkpoint, 9_241_705_984)}
    parts = ("name", "basename", "finetune", "version", "size_label", "organization")
    assert [found[f"general.{part}"] for part in parts] == [
        *("Gemma-2-9B-It-SPPO-Iter3", "Gemma-2", "It-SPPO", "Iter3", "9.2B", "UCLA-AGI"),
    ]


def test_the_place_the_time_and_the_user_do_not_matter(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = convert(source, tmp_path / "first.gguf")
    elsewhere = tmp_path / "else" / "where"
    shutil.copytree(source.parent.parent, elsewhere / source.parent.parent.name, symlinks=True)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.setenv(name, "/home/mallory")
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    monkeypatch.setattr(socket, "gethostname", lambda: "mallory")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert getpass.getuser() == "/home/mallory"
    monkeypatch.chdir(elsewhere)
    again = convert(Path(source.parent.parent.name, "snapshots", REVISION), tmp_path / "again.gguf")
    assert again.sha256 == first.sha256
    data = first.output.read_bytes()
    for private in (str(tmp_path), "mallory", os.environ["EDGESPPO_HOME"]):
        assert private.encode() not in data


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("", Card()),
        ("---\nlicense_name: gemma", Card()),  # a header that never ends is none
        ("---\nlicense: 'gemma'\n---", Card(license="gemma")),
        ('---\nlicense: "gemma"\n---', Card(license="gemma")),
        ("---\nlicense: |\n  gemma\n---", Card()),
        ("---\nlicense: {name: gemma}\n---", Card()),
        ("---\nlicense: &a gemma\nother: *a\n---", Card()),
        ("---\nlicense: null\n---", Card()),
        ("---\nlicense:\n---", Card()),
        (f"---\nlicense: {'x' * 201}\n---", Card()),
        ("---\nlicense: a\x1b[31mb\n---", Card()),
        ("---\nnested:\n  license: gemma\n---", Card()),
        ("---\r\nlicense: gemma\r\n---\r\n", Card(license="gemma")),
        ("---\ndatasets: [a/b, 'c/d']\n---", Card(datasets=("a/b", "c/d"))),
        ("---\ndatasets:\n- a/b\n- ../x\n- /etc/x\n- a/b/c\n---", Card(datasets=("a/b",))),
        ("---\nbase_model: a/b\n---\nFinetuned from model: c/d", Card(base_models=("a/b",))),
        ("**License:** MIT\n", Card(license_in_text="MIT")),
        ("* License: [Apache 2.0](LICENSE)\n", Card(license_in_text="Apache 2.0")),
        ("- **Finetuned from model:** `x`\n", Card()),
        (
            "---\nlicense: other\nlicense_name: gemma-x\nlicense_link: https://x.y/z\n---",
            Card(license="other", license_name="gemma-x", license_link="https://x.y/z"),
        ),
    ],
)
def test_what_a_card_says(text: str, card: Card) -> None:
    assert parse_card(text) == card


def test_no_card_is_an_error() -> None:
    rng = random.Random(3)
    for _ in range(2_000):
        data = bytearray(CARD.encode())
        for _ in range(rng.randint(1, 9)):
            data[rng.randrange(len(data))] = rng.choice(b"-:[]{}'\"\n #&*|>\xff\0")
        parse_card(data.decode("utf-8", "replace"))
    parse_card("---\n" + "- " * 100_000 + "\n" + "a: [" * 50_000 + "\n---\n" + "license:" * 50_000)
