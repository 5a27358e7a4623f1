"""`batch --recipe sppo`: the files that the published ranking script reads."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.batches import sppo
from edgesppo.sampling.params import SamplingParams
from tests.support.command_line import run

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = [
    "What is the capital of France?",
    "Hello",
    "Who are you?",
    "Bye",
    "My name is Ada.",
    "Hi",
]
SEEDS = [0, 50, 100, 150, 200]
SHORT = ["--max-tokens", "8"]


def candidates(folder: Path, n_prompts: int, n_seeds: int = 5) -> list[tuple[str, ...]]:
    """The responses to each prompt, by the form that the ranking script expects."""
    lists = [
        json.loads((folder / f"responses_{n}.json").read_text("utf-8")) for n in range(n_seeds)
    ]
    for texts in lists:
        assert isinstance(texts, list)
        assert all(isinstance(text, str) for text in texts)
    found = list(zip(*lists, strict=True))
    assert len(found) == n_prompts
    prompts = (folder / "prompts" / "train.jsonl").read_text("utf-8").splitlines()
    assert len(prompts) == n_prompts
    return found


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A data set: prompts among fields that do not matter."""
    path = tmp_path / "prompts.jsonl"
    lines = [
        json.dumps({"prompt": text, "prompt_id": n, "n": 99}) for n, text in enumerate(PROMPTS)
    ]
    path.write_text("\n".join(lines))
    return path


def test_five_answers_to_each_prompt_in_the_prompts_order(demo_gguf: Path, prompts: Path) -> None:
    out = prompts.parent / "iter 1"
    result = run("batch", demo_gguf, prompts, out, "--recipe", "sppo", *SHORT, "--parallel", "8")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (out / "responses.jsonl").read_text("utf-8").splitlines()]
    texts = {(row["row"], row["seed"]): row["text"] for row in rows}
    assert len(rows) == len(texts) == 5 * len(PROMPTS)
    assert candidates(out, len(PROMPTS)) == [
        tuple(texts[row, seed] for seed in SEEDS) for row in range(1, len(PROMPTS) + 1)
    ]
    assert texts[1, 0].startswith("The capital of France is")
    told = shlex.split(result.stdout)
    assert told[told.index("--output_dir") + 1] == "iter 1"
    assert told[told.index("--prompts") + 1] == str(out / "prompts")
    assert "scripts/rank.py" in told
    assert "https://github.com/uclaml/SPPO" in result.stderr.splitlines()[-1]  # above the command


def test_the_sampling_is_the_published_one_whatever_the_model_s_file_says() -> None:
    params = sppo.recipe({}).params(SamplingParams(temperature=0.1, top_k=3))
    assert (params.temperature, params.top_p, params.max_tokens) == (0.7, 0.9, 2048)
    assert params.top_k == 0
    assert sppo.recipe({}).seeds == (0, 50, 100, 150, 200)


def test_parts_are_in_files_of_their_own(demo_gguf: Path, prompts: Path) -> None:
    for part, first in (("1/3", PROMPTS[0]), ("3/3", PROMPTS[4])):
        out = prompts.parent / part[0]
        words = ["--recipe", "sppo", "--part", part, "--seeds", "0,50", *SHORT]
        assert run("batch", demo_gguf, prompts, out, *words).exit_code == 0
        candidates(out, 2, 2)
        assert json.loads((out / "prompts/train.jsonl").read_text().splitlines()[0]) == {
            "prompt": first
        }


def test_a_prompt_that_cannot_be_answered_keeps_its_place(demo_gguf: Path, tmp_path: Path) -> None:
    rows: list[Any] = ["Hi", {"text": "no prompt"}, "word " * 600, "Hello"]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    out = tmp_path / "out"
    words = ["--recipe", "sppo", "--seeds", "0,50", *SHORT]
    result = run("batch", demo_gguf, tmp_path / "in.json", out, *words)
    assert result.exit_code == 1
    found = candidates(out, 4, 2)
    assert found[1] == found[2] == ("", "")
    assert all(found[0])
    assert all(found[3])
    assert "2 prompts have no answer" in result.stderr
    assert "try them again" not in result.stderr, "the lists need every answer"


def test_an_input_without_any_prompt_is_refused(demo_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([{"instruction": "Hi"}, {"instruction": "Ho"}]))
    out = tmp_path / "out"
    result = run("batch", demo_gguf, tmp_path / "in.json", out, "--recipe", "sppo")
    assert result.exit_code == 1
    assert "has no row with a 'prompt'" in result.stderr
    assert not [*out.iterdir()]


def test_files_that_the_recipe_did_not_write_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    for name in ("prompts/train.jsonl", "responses_1.json"):
        mine = tmp_path / name
        mine.write_text('{"prompt": "Hi"}\n')
        result = run("batch", "demo", mine, tmp_path, "--recipe", "sppo", "--seeds", "0,50")
        assert f"{mine} would be replaced" in result.stderr
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
        mine.unlink()


def test_what_the_recipe_does_not_take_is_refused(prompts: Path) -> None:
    for words, said in (
        (["--system", "x"], "--recipe sppo takes no"),
        (["-n", "3"], "--recipe sppo takes no"),
        (["--part", "1/a"], "is not I/N"),
        (["--part", "0/3"], "the part is 0, expected a whole number from 1 to 3"),
        (["--seeds", "a"], "is not a list of numbers"),
    ):
        result = run("batch", "demo", prompts, prompts.parent / "out", "--recipe", "sppo", *words)
        assert (result.exit_code, said in result.stderr) == (2, True), words
    (prompts.parent / "file").write_text("")
    result = run("batch", "demo", prompts, prompts.parent / "file", "--recipe", "sppo")
    assert "expected a folder" in result.stderr
