"""`edgesppo eval`: what it prints, as text and as JSON, and what it refuses."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path

ARGS = ("--n-ctx", "64", "--chunks", "2")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("what's 20 minus 18. 20 minus 18 is 2. Hello! " * 12, encoding="utf-8")
    return path


def test_perplexity_is_printed_with_its_error(demo_gguf: Path, text: Path) -> None:
    result = run("eval", "perplexity", demo_gguf, "--text", text, *ARGS)
    assert result.exit_code == 0, result.output
    assert "perplexity" in result.stdout
    assert " +- " in result.stdout
    found = json.loads(run("eval", "perplexity", demo_gguf, "--text", text, *ARGS, "--json").stdout)
    assert found["tokens"] == 62
    assert f"{found['perplexity']:.4f} +- {found['perplexity_error']:.4f}" in result.stdout


def test_one_model_is_shown_with_a_histogram_and_several_as_a_table(
    demo_f32: Path, demo_gguf: Path, text: Path
) -> None:
    one = run("eval", "divergence", demo_f32, demo_gguf, "--text", text, *ARGS)
    assert one.exit_code == 0, one.output
    bars = [line for line in one.stdout.splitlines() if line.endswith("#")]
    assert any(line.count("#") == 40 for line in bars)
    assert "mean KLD" in one.stdout
    both = run("eval", "divergence", demo_f32, demo_gguf, demo_f32, "--text", text, *ARGS)
    head, *rows = both.stdout.splitlines()[1:]
    assert head.split()[:3] == ["size", "bits/w", "mean"]
    assert [row.split()[0] for row in rows] == [demo_gguf.stem, demo_f32.stem]


def test_json_has_every_figure_of_a_dialogue(
    demo_f32: Path, demo_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "dialogues.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    path.write_text(json.dumps(messages), encoding="utf-8")
    result = run("eval", "divergence", demo_f32, demo_gguf, "--dialogues", path, "--json")
    found = json.loads(result.stdout)
    assert found["everything"]["tokens"] > found["tokens"] > 0
    assert {"kld", "kld_median", "kld_p90", "kld_p99", "kld_p999", "kld_max"} <= found.keys()
    assert {"same_top", "rms_dp", "bytes", "bits_per_weight", "tokens_per_second"} <= found.keys()


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    demo_gguf: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plot = tmp_path / "plot.png"
    result = run("eval", "divergence", demo_gguf, demo_gguf, "--text", text, "--plot", plot)
    assert 'in the clone, pip install ".[plot]"' in one_line_error(result)


def test_a_plot_is_a_png(demo_f32: Path, demo_gguf: Path, text: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    result = run(
        *("eval", "divergence", demo_f32, demo_gguf, "--text", text, *ARGS, "--plot", plot)
    )
    assert result.exit_code == 0, result.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_errors_are_one_line_or_one_object(demo_gguf: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    line = one_line_error(run("eval", "perplexity", demo_gguf, "--text", empty))
    assert "is empty" in line
    result = run("eval", "perplexity", demo_gguf, "--text", empty, "--json")
    assert json.loads(result.stdout)["error"]["type"] == "UsageError"
    neither = run("eval", "perplexity", demo_gguf)
    assert (neither.exit_code, "give either --text" in neither.stderr) == (2, True)
    assert run("eval", "perplexity", demo_gguf, "--text", tmp_path / "none.txt").exit_code == 2
