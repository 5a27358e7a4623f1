"""The model card of a published file: accepted by the hub's parser, true, and safe to show."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import struct
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import ModelCard

from edgesppo.hub.model_card import parse_card
from edgesppo_convert import convert
from tests.support import gguf_maker as make
from tests.support.checkpoints import CARD, SHAPES, SMALL, write_checkpoint
from tests.support.command_line import one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path

TINY = SHAPES["tiny"]
ITER3 = "UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3"


def header_of(text: str) -> dict[str, Any]:
    """The header as the hub's own parser reads it."""
    found: dict[str, Any] = ModelCard(text).data.to_dict()
    return found


@pytest.fixture(scope="module")
def sppo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that was converted from a snapshot of the published repository (a tiny one)."""
    hub = tmp_path_factory.mktemp("hub")
    folder = hub / f"models--{ITER3.replace('/', '--')}" / "snapshots" / ("0" * 39 + "1")
    write_checkpoint(folder, SMALL)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return convert(folder, hub / "sppo-iter3.Q4_K_M.gguf").output


def test_the_hubs_parser_reads_what_a_publisher_needs(fresh_home: Path, sppo: Path) -> None:
    assert fresh_home.is_dir()
    text = run("card", sppo).stdout
    assert header_of(text) == {
        "license": "gemma",
        "license_link": "https://ai.google.dev/gemma/terms",
        "base_model": ITER3,
        "base_model_relation": "quantized",
        "datasets": ["openbmb/UltraFeedback"],
        "language": ["en"],
        "pipeline_tag": "text-generation",
        "quantized_by": "edgesppo 0.1.0",
        "tags": ["gguf", "gemma2", "sppo"],
    }
    ours = parse_card(text)
    assert (ours.license, ours.base_models, ours.datasets) == (
        "gemma",
        (ITER3,),
        ("openbmb/UltraFeedback",),
    )


def test_it_says_how_the_file_was_made_and_what_is_in_it(fresh_home: Path, sppo: Path) -> None:
    assert fresh_home.is_dir()
    text = run("card", sppo).stdout
    shown = json.loads(run("show", sppo, "--json").stdout)
    assert hashlib.sha256(sppo.read_bytes()).hexdigest() in text
    assert f"{sppo.stat().st_size:,} bytes" in text
    for kind, found in shown["types"].items():
        assert f"| {kind} | {found['tensors']:,} | {found['bytes']:,} |" in text
    for entry in (*shown["inputs"]["files"], *shown["inputs"]["weights"]):
        assert entry.split()[-1] in text
    assert "at commit `0000000000000000000000000000000000000001`" in text
    assert f"edgesppo chat {sppo.name}\nllama-cli -m {sppo.name}" in text
    assert "follow the stricter" in text


def test_the_importance_matrix_that_was_used_is_named(fresh_home: Path, tmp_path: Path) -> None:
    assert fresh_home.is_dir()
    path = tmp_path / "mine.gguf"
    texts = {b"file": b"my.imatrix.gguf", b"dataset": b"wiki.txt"}
    keys = [
        make.key(b"quantize.imatrix." + name, make.STRING, make.string(text))
        for name, text in texts.items()
    ]
    keys.append(make.number(b"quantize.imatrix.entries_count", 1182))
    path.write_bytes(make.model(keys=keys))
    said = "my.imatrix.gguf, collected on wiki.txt, 1,182 weights"
    assert f"  imatrix     {said}\n" in run("show", path).stdout
    assert f"- Importance matrix: {said}\n" in run("card", path).stdout
    used = json.loads(run("show", path, "--json").stdout)["imatrix"]
    assert (used["dataset"], used["entries"], used["chunks"]) == ("wiki.txt", 1182, None)


def test_published_results_are_said_to_be_the_base_models(fresh_home: Path, sppo: Path) -> None:
    assert fresh_home.is_dir()
    text = run("card", sppo).stdout
    published = text.split("## Published results of the base model")[1].split("\n## ")[0]
    assert "They are not results of this file" in published
    assert "53.27 % length-controlled win rate, 47.74 % win rate" in published
    assert "1,803 characters" in published
    training = text.split("## Training of the base model")[1].split("\n## ")[0]
    assert "| learning rate | 5e-07 |" in training
    assert "| eta | 1000 |" in training
    assert "eprint = {2405.00675}" in text
    assert "model-index" not in text


def test_what_nobody_said_is_not_in_it(fresh_home: Path, tmp_path: Path) -> None:
    assert fresh_home.is_dir()
    path = tmp_path / "bare.gguf"
    path.write_bytes(make.model())
    result = run("card", path)
    assert header_of(result.stdout) == {
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "gemma2"],
    }
    for absent in ("Published", "Training", "How it was made", "Citation", "Trained", "Measure"):
        assert absent not in result.stdout
    assert "Neither the file nor a lock names a licence." in result.stdout
    assert "--base-model OWNER/NAME adds it" in result.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.source.repo_url", f"https://huggingface.co/{ITER3}"),
        ("general.source.repo_url", f"https://huggingface.co/{ITER3}/"),
        ("general.source.url", f"https://huggingface.co/{ITER3}/tree/main"),
        ("general.source.huggingface.repository", ITER3),
    ],
)
def test_every_key_that_names_the_source_is_known(
    fresh_home: Path, tmp_path: Path, key: str, value: str
) -> None:
    assert fresh_home.is_dir()
    path = tmp_path / "model.gguf"
    path.write_bytes(
        make.model(keys=[make.key(key.encode(), make.STRING, make.string(value.encode()))])
    )
    found = header_of(run("card", path).stdout)
    assert (found["base_model"], found["base_model_relation"]) == (ITER3, "quantized")
    assert (found["license"], found["datasets"]) == ("gemma", ["openbmb/UltraFeedback"])


def test_a_base_that_the_file_only_descends_from_is_not_called_quantised(
    fresh_home: Path, tmp_path: Path
) -> None:
    assert fresh_home.is_dir()
    source = write_checkpoint(tmp_path / "mine", SMALL)
    (source / "README.md").write_text(CARD, encoding="utf-8")
    file = convert(source, tmp_path / "mine.gguf").output
    found = header_of(run("card", file).stdout)
    assert (found["base_model"], found["base_model_relation"]) == (
        "google/gemma-2-9b-it",
        "finetune",
    )
    given = header_of(run("card", file, "--base-model", "someone/their-model").stdout)
    assert (given["base_model"], given["base_model_relation"]) == (
        "someone/their-model",
        "quantized",
    )
    assert "is not-a-repository" not in one_line_error(
        run("card", file, "--base-model", "not a repository", "--quiet")
    )


def test_a_file_of_a_known_name_is_not_taken_for_that_model(
    fresh_home: Path, tmp_path: Path
) -> None:
    assert fresh_home.is_dir()
    path = tmp_path / "model.gguf"
    name = make.key(b"general.name", make.STRING, make.string(ITER3.partition("/")[2].encode()))
    path.write_bytes(make.model(keys=[name]))
    result = run("card", path)
    assert "base_model" not in header_of(result.stdout)
    assert f"--base-model {ITER3} adds it, if that is it" in result.stderr


def test_a_base_that_contradicts_the_file_is_refused(fresh_home: Path, sppo: Path) -> None:
    assert fresh_home.is_dir()
    error = one_line_error(run("card", sppo, "--base-model", "google/gemma-2-2b-it", "--quiet"))
    assert f"says that it was made of {ITER3}" in error


def test_the_demo_is_known_by_the_hashes_of_its_weights(fresh_home: Path, demo_gguf: Path) -> None:
    assert fresh_home.is_dir()
    text = run("card", demo_gguf).stdout
    assert "- The model: A tiny Gemma-2 trained for this package" in text
    assert header_of(text)["license"] == "apache-2.0"


HOSTILE = [
    "---\nlicense: mit\n---",
    "x: y # z",
    "'",
    '"',
    "yes",
    "1.0",
    "[a](javascript:alert(1))",
    "<script>alert(1)</script>",
    "`|`|\n# A heading",
    "\u202e\u2028\x1b[2J\u0085",
    "{{ 7*7 }}",
    "&a *a !!python/object",
    "\\",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_file_gets_out_of_its_place(
    fresh_home: Path, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert fresh_home.is_dir()
    path = tmp_path / "model.gguf"
    names = ("name", "quantized_by", "license", "license.link", "license.name", "basename")
    keys = [f"general.{name}" for name in names]
    keys += ["general.base_model.0.name", "general.dataset.0.name", "quantize.imatrix.file"]
    keys += ["general.source.repo_url", "edgesppo.license.in_text", "edgesppo.lineage.method"]
    value = make.string(text.encode())
    path.write_bytes(
        make.model(
            keys=[
                *(make.key(key.encode(), make.STRING, value) for key in keys),
                make.key(b"general.base_model.count", make.U32, struct.pack("<I", 1)),
                make.key(b"general.languages", make.ARRAY, make.array(make.STRING, [value])),
            ]
        )
    )
    with caplog.at_level(logging.WARNING):
        card = run("card", path).stdout
        found = header_of(card)
    assert found.get("quantized_by") == " ".join(
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in part)
        for part in re.split(r"[ \t\n\r\f\v]+", text.strip(" \t\n\r\f\v"))
    )
    assert found.get("license") in (None, "yes", "1.0")
    assert found["pipeline_tag"] == "text-generation"
    body = card.split("\n---\n", 1)[1]
    body = re.sub(r"\\.|`[^`\n]*`", "", body.replace("```", ""))
    for danger in ("<script", "](javascript", "\n# A heading", "\x1b", "\u202e", "\u2028"):
        assert danger not in body
    assert body.count("\n# ") == 1


def test_measurements_of_the_file_are_added(fresh_home: Path, tmp_path: Path, sppo: Path) -> None:
    assert fresh_home.is_dir()
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps({"model": "m", "decode": {"512": 4.7512345}, "small": False}))
    other = tmp_path / "other" / "bench.json"
    other.parent.mkdir()
    other.write_text(
        json.dumps({"models": [{"model": "a", "kld": 0.5}, {"model": "b", "kld": 1.5}]})
    )
    text = run("card", sppo, "--measured", bench, "--measured", other).stdout
    assert text.count("From `bench.json`:") == 2
    assert "| models b kld | 1.5 |" in text
    assert "## Measurements of this file\n\nFrom `bench.json`:" in text
    assert "| decode 512 | 4.75123 |" in text
    assert "small" not in text.split("## Measurements of this file")[1].split("\n## ")[0]
    for bad, complaint in (("[1]", "expected one JSON object"), ("{", "not JSON")):
        bench.write_text(bad)
        error = one_line_error(run("card", sppo, "--measured", bench, "--quiet"))
        assert complaint in error


def test_it_is_written_to_a_file_that_is_not_there(
    fresh_home: Path, tmp_path: Path, sppo: Path
) -> None:
    assert fresh_home.is_dir()
    output = tmp_path / "README.md"
    assert run("card", sppo, "-o", output).stdout == ""
    assert header_of(output.read_text(encoding="utf-8"))["base_model"] == ITER3
    output.write_text("mine")
    assert "exists; --force replaces it" in one_line_error(run("card", sppo, "-o", output))
    assert output.read_text() == "mine"
    found = json.loads(run("card", sppo, "-o", output, "--force", "--json").stdout)
    assert found["output"] == str(output)
    assert output.read_text(encoding="utf-8") == found["text"]
    assert found["header"]["base_model_relation"] == "quantized"
    assert "is a folder; name a file in it" in one_line_error(run("card", sppo, "-o", tmp_path))


def test_a_file_that_is_no_model_is_refused(fresh_home: Path, tmp_path: Path) -> None:
    assert fresh_home.is_dir()
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\3\4")
    assert "is not a GGUF file" in one_line_error(run("card", path))
    assert "edgesppo pull sppo-iter1 --convert" in one_line_error(run("card", "sppo-iter1"))


@pytest.mark.parametrize("kind", ["q4_k_m", "q4_k_s", "iq4_xs", "q4_0", "bf16"])
def test_the_type_is_the_files_where_its_tensors_follow_that(tmp_path: Path, kind: str) -> None:
    made = convert(write_checkpoint(tmp_path / "in", TINY), tmp_path / "out.gguf", type=kind).output
    text = run("card", made).stdout
    assert f"GGUF file of the type {kind.upper()}, for" in text


def test_of_types_chosen_tensor_by_tensor_it_says_which(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "in", TINY)
    better = {"tensor_types": ["blk.0.attn_q=q5_k"]}
    text = run("card", convert(folder, tmp_path / "out.gguf", **better).output).stdout
    assert "GGUF file of mixed types (Q4_K, Q6_K, Q5_K), chosen tensor by tensor, for" in text
    assert "Q4_K_M" not in text
