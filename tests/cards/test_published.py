"""What models.lock knows of a model is shown, and planned with, before the model is here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadLock
from edgesppo.lockfile import toml
from edgesppo.store.expected import expected_summary
from tests.support.command_line import one_line_error, run
from tests.support.gguf_maker import NUMBERS

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel

SPPO = ("sppo-iter1", "sppo-iter2", "sppo-iter3")
ABSENT = (*SPPO, "gemma-2-9b-it", "gemma-2-2b-it")
ALPACA_EVAL = {
    "sppo-iter1": (48.70, 40.76, 1669),
    "sppo-iter2": (50.93, 44.64, 1759),
    "sppo-iter3": (53.27, 47.74, 1803),
}
ENTRY = (
    'version = 1\n[[model]]\nname = "r"\nkind = "checkpoint"\ndescription = "d"\nlicense = "L"\n'
    'repository = "o/n"\nrevision = "unresolved"\n'
)
SHAPE = (
    "[model.shape]\nparameters = 1\nlayers = 2\nhidden_size = 32\nfeed_forward_size = 64\n"
    "heads = 2\nkv_heads = 1\nhead_size = 16\nvocabulary = 300\ncontext = 64\nwindow = 32\n"
    "attention_softcap = 50\noutput_softcap = 30.0\n"
)
WRONG = {
    "no table": ("shape = 3\n", "model 1, shape: expected a table, found 3"),
    "a missing size": ("[model.shape]\nlayers = 3\n", "shape: parameters is missing"),
    "an unknown key": (f"{SHAPE}color = 1\n", "shape: unknown key 'color'; known: parameters"),
    "a text": (
        SHAPE.replace("= 64\nheads", '= "64"\nheads'),
        "feed_forward_size is '64', expected a",
    ),
    "a fraction": (SHAPE.replace("layers = 2", "layers = 2.5"), "layers is 2.5, expected a whole"),
    "a negative": (SHAPE.replace("layers = 2", "layers = -2"), "layers is -2, expected a whole"),
    "true": (SHAPE.replace("layers = 2", "layers = true"), "layers is True, expected a whole"),
    "no number": (
        "[model.training]\neta = nan\n",
        "training: eta is 'nan', expected a number from",
    ),
    "infinity": ("[model.training]\neta = inf\n", "eta is 'inf', expected a number from"),
    "an empty text": ('[model.training]\nprompts = ""\n', "prompts is '', expected a text"),
    "a long text": (f'[model.training]\nprompts = "{"x" * 501}"\n', "expected a text of 1 to 500"),
    "one result": (
        '[model.result]\nbenchmark = "b"\n',
        r"expected 1 to 32 tables \[\[model.result",
    ),
    "no benchmark": ("[[model.result]]\nwin_rate = 1\n", "result 1: benchmark is missing"),
}


def with_shape(**numbers: float) -> PinnedModel:
    text = SHAPE
    for key, value in numbers.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{key} =")]
        text = text.replace(line, f"{key} = {value}")
    return toml.parse(ENTRY + text, "test").models["r"]


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_is_refused_with_its_place(case: str) -> None:
    table, complaint = WRONG[case]
    with pytest.raises(BadLock, match=complaint):
        toml.parse(ENTRY + table, "test")


def test_the_tables_read_back_equal() -> None:
    shipped = toml.read()
    assert toml.parse(toml.render(shipped), "test") == shipped
    few = toml.parse(f"{ENTRY}{SHAPE}[model.training]\nseed = 0\n", "test")
    assert toml.parse(toml.render(few), "test") == few


@pytest.mark.parametrize("name", ABSENT)
def test_the_published_number_of_parameters_is_that_of_the_shape(name: str) -> None:
    entry = toml.read().models[name]
    assert entry.shape is not None
    weights = 0
    for tensor in expected_summary(entry).tensors:
        n = 1
        for size in tensor.dims:
            n *= size
        weights += n
    assert weights == entry.shape.parameters


def test_the_expected_file_is_the_one_that_is_written(tmp_path: Path) -> None:
    from edgesppo.gguf import gemma2
    from edgesppo_convert import convert
    from tests.support.checkpoints import SHAPES, write_checkpoint

    shape = SHAPES["tiny"]
    source = write_checkpoint(tmp_path / "tiny", shape)
    written = gemma2.load_summary(convert(source, tmp_path / "tiny.gguf").output)
    expected = expected_summary(
        with_shape(
            layers=shape.layers,
            hidden_size=shape.hidden,
            feed_forward_size=shape.ffn,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_size=shape.head_dim,
            vocabulary=shape.vocabulary,
            context=shape.context,
            window=shape.window,
        )
    )
    assert expected.data_bytes == written.data_bytes
    assert {(t.name, t.type, t.dims) for t in expected.tensors} == {
        (t.name, t.type, t.dims) for t in written.tensors
    }
    assert expected.tensors[-1].type == written.tensors[-1].type
    known = {key: value for key, value in written.keys.items() if key in expected.keys}
    assert known == pytest.approx(expected.keys)
    assert {key.removeprefix("gemma2.") for key in known} >= NUMBERS.keys()


@pytest.mark.parametrize(
    "numbers",
    [{"layers": 2**50}, {"heads": 3, "kv_heads": 2}, {"vocabulary": 2**40}, {"hidden_size": 0}],
)
def test_a_shape_that_no_gemma_has_is_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(BadLock, match="the lock's shape of r: "):
        expected_summary(with_shape(**numbers))


@pytest.mark.parametrize("name", ABSENT)
def test_show_prints_a_card_of_a_model_that_is_not_here(fresh_home: Path, name: str) -> None:
    assert fresh_home.is_dir()
    shown = run("show", name)
    assert shown.exit_code == 0
    assert f"here        no; to get it: edgesppo pull {name} --convert\n" in shown.stdout
    assert "parameters, " in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    found = json.loads(run("show", name, "--json").stdout)
    assert (found["here"], found["revision"]) == (False, "unresolved")
    assert found["license"]["header"] == "gemma"
    assert found["model"]["context"] == 8192


@pytest.mark.parametrize("name", SPPO)
def test_the_card_has_the_published_training_and_results(fresh_home: Path, name: str) -> None:
    assert fresh_home.is_dir()
    found = json.loads(run("show", name, "--json").stdout)
    (result,) = found["results"]
    figures = ("length_controlled_win_rate", "win_rate", "average_length")
    assert tuple(result[key] for key in figures) == ALPACA_EVAL[name]
    n = int(name[-1])
    before = f"UCLA-AGI/Gemma-2-9B-It-SPPO-Iter{n - 1}" if n > 1 else "google/gemma-2-9b-it"
    assert found["training"]["started_from"] == before
    assert found["training"]["prompts"] == f"UCLA-AGI/data-mistral-7b-instruct-sppo-iter{n}"
    assert (found["training"]["learning_rate"], found["training"]["eta"]) == (5e-07, 1000)
    assert found["license"]["in_text"] == "Apache-2.0"
    assert found["citation"]["arxiv"] == "2405.00675"
    text = " ".join(run("show", name).stdout.split())
    assert f"{result['length_controlled_win_rate']:.2f} % length-controlled win rate" in text
    assert "the card's text says Apache-2.0: follow the stricter" in text


def test_the_base_models_have_no_results_that_nobody_gave(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    found = json.loads(run("show", "gemma-2-9b-it", "--json").stdout)
    assert (found["results"], found["training"], found["citation"]) == ([], None, None)


def test_a_repository_names_its_entry(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    found = json.loads(run("show", "UCLA-AGI/Gemma-2-9B-It-SPPO-Iter2", "--json").stdout)
    assert found["name"] == "sppo-iter2"


def test_plan_says_what_an_absent_model_will_take(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    shown = run("plan", "sppo-iter3", "--n-ctx", "2048", "--json")
    found = json.loads(shown.stdout)
    assert found["here"] is False
    assert found["weights"] >= 5_755_000_832
    assert found["kv"] == 344_064 * 2048
    assert found["download"] == 2 * 9_241_705_984
    assert 0 < found["file"] - 5_755_000_832 < 20_000_000
    assert found["disk"] == found["file"] + 5_000_000_000
    assert found["decode_tps_at_most"] == pytest.approx(found["bandwidth"] / 5_755_000_832)
    assert shown.exit_code == (0 if found["fits"] else 1)


def test_plan_prints_it_and_plans_a_draft_that_is_absent_too(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    lines = run("plan", "sppo-iter3", "--draft", "gemma-2-2b-it").stdout
    for part in ("here      no", "download  about 18.5 GB", "disk      about 5.8 GB", "GB/s"):
        assert part in lines
    assert "for gemma-2-2b-it-q4_k_m.gguf" in lines


def test_plan_of_a_model_of_unknown_shape_says_what_to_do(fresh_home: Path, tmp_path: Path) -> None:
    assert fresh_home.is_dir()
    lock = tmp_path / "models.lock"
    lock.write_text(ENTRY, encoding="utf-8")
    error = one_line_error(run("plan", "r", "--lock", lock))
    assert "its lock does not say what it will take; edgesppo pull shows that" in error
    assert run("show", "r", "--lock", lock).exit_code == 0
