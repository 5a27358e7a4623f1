"""Settings are chosen by what was measured, what was asked for, and what memory there is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.engine.engine import Engine
from edgesppo.gguf import gemma2
from edgesppo.planning import memory_plan, run_config
from edgesppo.planning.run_config import (
    DEFAULT_ROW_COSTS,
    RunConfig,
    default_config,
    low_memory_config,
)
from edgesppo.system import hardware
from edgesppo.terminal.format import describe
from edgesppo.tuning import autotune, choose, settings_cache
from edgesppo.tuning.choose import LoadOptions
from edgesppo.tuning.settings_cache import cached_settings

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary


def test_without_memory_for_a_second_context_there_is_one(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = RunConfig(1, 1, True, "on", 512, 100.0, 10.0, plain_from=64)
    monkeypatch.setattr(settings_cache, "cached_settings", lambda *_: both)
    found, two = choose.choose_settings(summary, LoadOptions())
    assert (found.plain_from, two.prefill > 0) == (64, True)
    free(monkeypatch, two.total - 1)
    found, one = choose.choose_settings(summary, LoadOptions())
    assert found == RunConfig(1, 1, True, "on", 512, None, 10.0)
    assert one.prefill == 0
    assert one.fits
    assert choose.origin(summary, LoadOptions(), found) == choose.ONE_CONTEXT
    free(monkeypatch, one.total - 1)
    assert choose.choose_settings(summary, LoadOptions())[0] == low_memory_config()


def test_a_small_model_is_not_measured_and_runs_on_one_thread(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cores", lambda: 4)
    small = gemma2.load_summary(demo_gguf)
    for goal in run_config.GOALS:
        assert cached_settings(small, goal) == RunConfig(1, 1)
    assert low_memory_config(small).n_threads == 1
    assert default_config().n_threads == 4
    found, made = choose.choose_settings(small, LoadOptions(n_threads=3))
    assert (found.n_threads, found.n_threads_batch, made.n_threads) == (3, 3, 3)
    with edgesppo.load(demo_gguf) as model:
        assert (model._interior.engine.n_threads, model._interior.engine.n_threads_batch) == (1, 1)
        assert "| CPU, 1 thread | loaded" in describe(model)
        engine = Engine(model._interior.engine.model)
        assert engine.n_threads == 1
        engine.close()
        monkeypatch.setattr(run_config, "_WORTH_TUNING", 0)
        engine = Engine(model._interior.engine.model)
        assert engine.n_threads == 4
        engine.close()


@pytest.mark.usefixtures("summary")
@pytest.mark.parametrize("goal", ["", "fast", None, 3, []])
def test_an_unknown_goal_is_refused_by_name(demo_gguf: Path, goal: object) -> None:
    with pytest.raises(edgesppo.UsageError, match=r"tune is .*, expected one of turn, prefill"):
        edgesppo.load(demo_gguf, tune=goal)  # type: ignore[arg-type]


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: size)
    monkeypatch.setattr(choose, "available_memory", lambda: size)


def test_what_needs_too_much_memory_gives_way_to_what_needs_the_least(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = RunConfig(2, 2, repack=True, flash_attention="off", n_ubatch=512)
    monkeypatch.setattr(settings_cache, "cached_settings", lambda *_: costly)
    found, made = choose.choose_settings(summary, LoadOptions())
    assert found == costly
    free(monkeypatch, made.total - 1)
    found, made = choose.choose_settings(summary, LoadOptions())
    assert found == low_memory_config()
    assert made.fits


def test_nothing_is_measured_where_even_the_least_does_not_fit(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "find_settings", lambda *_: pytest.fail("measured"))
    free(monkeypatch, 1_000_000)
    with pytest.raises(edgesppo.OutOfMemory, match="--force"):
        choose.choose_settings(summary, LoadOptions())
    found, made = choose.choose_settings(summary, LoadOptions(force=True))
    assert found == low_memory_config()
    assert not made.fits


def test_layers_on_a_gpu_need_none_of_the_computers_memory(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, alone = choose.choose_settings(summary, LoadOptions(n_seqs=2), measure=False)
    embedding = next(t.n_bytes for t in summary.tensors if t.name == "token_embd.weight")
    kv = []
    for layers in (1, 2, -1):
        monkeypatch.setattr(choose, "_gpu_layers", lambda _, n=layers: n)
        _, plan = choose.choose_settings(summary, LoadOptions(n_seqs=2), measure=False)
        assert "without what lies in the GPU's own" in plan.explain()
        kv.append(plan.kv)
    assert kv[0] > kv[1] > kv[2] == 0, "the output counts as the first layer that is offloaded"
    assert embedding <= plan.weights < embedding + 100_000
    monkeypatch.setattr("sys.platform", "darwin")  # a Mac's GPU has no memory of its own
    _, plan = choose.choose_settings(summary, LoadOptions(n_seqs=2), measure=False)
    assert (plan.total, plan.on_gpu) == (alone.total, False)


def test_threads_that_were_asked_for_are_taken(summary: Summary) -> None:
    found, made = choose.choose_settings(summary, LoadOptions(n_threads=1), measure=False)
    assert (found.n_threads, found.n_threads_batch) == (1, 1)
    assert (made.n_threads, made.n_threads_batch) == (1, 1)


def test_what_was_measured_with_other_threads_is_not_used(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost of a batch depends on the number of threads."""
    known = RunConfig(2, 2, False, "on", 128, 100.0, 10.0, (1.0, 1.1, 1.2, 1.3))
    monkeypatch.setattr(settings_cache, "cached_settings", lambda *_: known)
    assert choose.choose_settings(summary, LoadOptions(n_threads=2))[0] == known
    other, _ = choose.choose_settings(summary, LoadOptions(n_threads=1))
    assert other.row_costs == DEFAULT_ROW_COSTS
    assert (other.prefill_tps, other.decode_tps) == (None, None)
    assert (other.repack, other.flash_attention, other.n_ubatch) == (False, "on", 128)


def test_the_origin_of_settings_is_told(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    def origin(**wishes: Any) -> str:
        wanted = LoadOptions(**wishes)
        tuning, _ = choose.choose_settings(summary, wanted, measure=False)
        found = choose.origin(summary, wanted, tuning)
        told.add(found)
        return found

    told = set[str]()
    assert origin() == "not yet"
    assert origin(tune="off") == "off"
    with monkeypatch.context() as patch:
        patch.setattr(choose, "_gpu_layers", lambda _: -1)
        assert origin() == "gpu"
    with monkeypatch.context() as patch:
        patch.setattr(run_config, "_WORTH_TUNING", 1 << 30)
        assert origin() == "small"
    known = RunConfig(2, 2, False, "on", 512, 100.0, 10.0)
    monkeypatch.setattr(settings_cache, "cached_settings", lambda *_: known)
    assert origin() == choose.MEASURED
    assert origin(n_threads=1) == "other threads"
    both = replace(known, repack=True, plain_from=64)
    monkeypatch.setattr(settings_cache, "cached_settings", lambda *_: both)
    assert origin() == choose.MEASURED
    with monkeypatch.context() as patch:
        free(patch, choose.choose_settings(summary, LoadOptions())[1].total - 1)
        assert origin() == choose.ONE_CONTEXT
    free(monkeypatch, 1_000_000)
    assert origin(force=True, n_threads=1) == "frugal"
    assert told == set(choose.ORIGINS)
