"""The fastest settings: found by running the model, remembered for this machine and this model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.engine.engine import Engine
from edgesppo.gguf import gemma2
from edgesppo.llama import build_info
from edgesppo.planning import memory_plan, run_config
from edgesppo.planning.run_config import (
    DEFAULT_ROW_COSTS,
    RunConfig,
    default_config,
    low_memory_config,
)
from edgesppo.system import hardware, load
from edgesppo.terminal.format import describe
from edgesppo.tuning import autotune, bench, choose, measure, second_context, settings_cache
from edgesppo.tuning.autotune import Search, find_settings
from edgesppo.tuning.choose import LoadOptions
from edgesppo.tuning.settings_cache import cached_settings
from tests.support.tuning import measure_little

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary


@pytest.fixture(autouse=True)
def _little_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_little(monkeypatch)


@pytest.fixture
def summary(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Summary:
    """The demo, as if it were large enough to be measured, and an empty cache folder."""
    monkeypatch.setattr(run_config, "_WORTH_TUNING", 0)
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    return gemma2.load_summary(demo_gguf)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of so small a model mostly wait for each other, where other tests run, too."""
    monkeypatch.setattr(hardware, "thread_choices", lambda: [1])
    monkeypatch.setattr(hardware, "cores", lambda: 1)


@pytest.mark.parametrize("goal", run_config.TURNS)
def test_what_is_found_was_measured_and_can_be_run(demo_gguf: Path, goal: str) -> None:
    heard: list[float] = []
    found = Search(demo_gguf, goal, heard.append).best()
    assert found.prefill_tps is not None
    assert found.prefill_tps > 0
    assert found.decode_tps is not None
    assert found.decode_tps > 0
    assert found.n_threads in hardware.thread_choices()
    assert found.n_threads_batch in hardware.thread_choices()
    assert (heard[0], heard[-1]) == (0, 1)
    assert heard == sorted(heard)


def test_the_least_memory_is_what_memory_asks_for(demo_gguf: Path) -> None:
    found = Search(demo_gguf, "memory", lambda _: None).best()
    assert (found.repack, found.flash_attention, found.n_ubatch) == (False, "on", 128)


def test_a_way_that_is_faster_wins(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up rates in place of measured ones."""

    class Fake(measure.Probe):
        def warm_up(self) -> float:
            return 100.0

        def rows(self, n: int) -> float:
            return float(n)

        def turn(self, _n: int) -> tuple[float, float]:
            way = self._context.params
            prefill = 100 + 50 * (way.flash_attention == "off") + 10 * way.n_threads_batch
            return prefill, 10 - way.n_threads

        def set_threads(self, n: int) -> None:
            way = self._context.params
            self._context.params = replace(way, n_threads=n, n_threads_batch=n)

    monkeypatch.setattr(hardware, "thread_choices", lambda: [1, 2])
    monkeypatch.setattr(measure, "Probe", Fake)
    found = Search(demo_gguf, "prefill", lambda _: None).best()
    assert found.flash_attention == "off"
    assert (found.n_threads, found.n_threads_batch) == (1, 2)


def test_what_is_not_faster_beyond_noise_is_left_as_llama_cpp_has_it(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain weights are the faster ones on average, by one round in which others were busy."""

    class Fake(measure.Probe):
        rounds = 0

        def turn(self, n: int) -> tuple[float, float]:
            super().turn(n)
            Fake.rounds += 1
            return (100.0, 10.0) if Fake.rounds % 4 else (300.0, 30.0)

    monkeypatch.setattr(measure, "Probe", Fake)
    found = Search(demo_gguf, "turn", lambda _: None).best()
    assert (found.repack, found.flash_attention, found.n_ubatch) == (True, "on", 512)
    assert (found.prefill_tps, found.decode_tps) == (100.0, 10.0)


@pytest.mark.parametrize(
    ("plain_prefill", "plain_decode", "copy_s", "spoiled", "least"),
    [
        (200.0, 8.0, 0.0, 0, 64),
        (200.0, 8.0, 0.4, 0, 128),  # 64 tokens gain 0.32 s, 128 twice as much
        (200.0, 8.0, 2.5, 0, None),  # 256 gain 1.28 s
        (200.0, 10.0, 0.0, 0, None),  # plain weights alone give both best speeds
        (90.0, 8.0, 0.0, 0, None),
        (200.0, 8.0, 0.0, 1, 64),  # more rounds tell that repacked weights decode faster
        (200.0, 8.0, 0.0, 2, None),
    ],
)
def test_a_second_context_is_found_where_it_pays(
    demo_gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain_prefill: float,
    plain_decode: float,
    copy_s: float,
    spoiled: int,
    least: int | None,
) -> None:
    """With made-up rates: repacked weights prefill at 100 tokens/s, and decode at 10.

    But in the first, or the first two, rounds others are busy while they decode.
    """
    answers = [4.0] * spoiled

    class FakeWeights(measure.Weights):
        def __init__(self, path: Path, *, repack: bool) -> None:
            super().__init__(path, repack=repack)
            self.is_plain = not repack

    class Fake(measure.Probe):
        def __init__(self, weights: FakeWeights, *rest: Any, **named: Any) -> None:
            super().__init__(weights, *rest, **named)
            self._is_plain = weights.is_plain

        def warm_up(self) -> float:
            return 100.0

        def prefill(self, n: int) -> float:
            return n / (plain_prefill if self._is_plain else 100.0)

        def decode(self, _n: int) -> float:
            if self._is_plain:
                return plain_decode
            return answers.pop() if answers else 10.0

    class FakeTwo(measure.TwoContextsProbe):
        def prefill(self, n: int) -> float:
            self.copy_s = copy_s
            return self._prompts.prefill(n) + copy_s

    lengths = (256, 128, 64, 32)
    for module in (measure, autotune, second_context):
        monkeypatch.setattr(module, "LENGTHS", lengths)
    monkeypatch.setattr(measure, "Weights", FakeWeights)
    monkeypatch.setattr(measure, "Probe", Fake)
    monkeypatch.setattr(measure, "TwoContextsProbe", FakeTwo)
    monkeypatch.setattr(second_context, "TwoContextsProbe", FakeTwo)
    found = Search(demo_gguf, "turn", lambda _: None).best()
    assert found.plain_from == least
    by_both = "else plain weights are the fastest for both"
    assert spoiled == 2 or found.repack == (plain_decode < 10), by_both
    if least is not None:
        assert found.decode_tps == 10
        assert found.prefill_tps == pytest.approx(256 / (256 / plain_prefill + copy_s))


def test_a_second_context_is_really_measured_and_used(
    summary: Summary, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is faster here: as if it were the second one."""
    monkeypatch.setattr(second_context, "is_faster", lambda *_: True)
    monkeypatch.setattr(bench, "_READ", 8 << 20)
    found = find_settings(summary, "turn")
    assert (found.plain_from, found.repack) == (64, True)
    assert found.prefill_tps is not None
    assert found.prefill_tps > 0
    assert cached_settings(summary, "turn") == found
    report = bench.measure(summary, found)
    assert all(rate > 0 for rate in [*report.prefill.values(), *report.decode.values()])
    question = "What is the capital of France? " * 12
    with edgesppo.load(demo_gguf) as model:
        two = model.ask(question, temperature=0, max_tokens=8)
        assert model._interior.engine._long_prompts._context is not None
    with edgesppo.load(demo_gguf, tune="off") as model:
        assert model.ask(question, temperature=0, max_tokens=8) == two


def test_what_an_older_search_found_is_measured_again(summary: Summary) -> None:
    settings_cache.store(summary, "turn", RunConfig(1, 1, True, "on", 512, 100.0, 10.0))
    place = settings_cache._cache_path(summary, "turn")
    kept = json.loads(place.read_text(encoding="utf-8"))
    for version in (1, 99, None):
        place.write_text(json.dumps({**kept, "version": version}), encoding="utf-8")
        assert cached_settings(summary, "turn") is None
    for key in ("version", "plain_from"):
        del kept[key]
    place.write_text(json.dumps(kept), encoding="utf-8")
    assert cached_settings(summary, "turn") is None


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


def test_settings_that_real_answers_contradict_are_measured_again_once_a_day(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = RunConfig(2, 2, False, "on", 512, 100.0, 10.0)
    settings_cache.store(summary, "turn", known)
    settings_cache.doubt(summary, replace(known, decode_tps=9.0))
    settings_cache.doubt(summary, known)
    assert cached_settings(summary, "turn") == known
    now = settings_cache.time.time()
    monkeypatch.setattr(settings_cache.time, "time", lambda: now + 25 * 3600)
    assert cached_settings(summary, "turn") is None
    settings_cache.store(summary, "turn", known)
    monkeypatch.setattr(settings_cache.time, "time", lambda: now + 99 * 3600)
    assert cached_settings(summary, "turn") == known


def test_it_is_measured_once_for_each_goal(summary: Summary) -> None:
    assert cached_settings(summary, "memory") is None
    found = find_settings(summary, "memory")
    assert cached_settings(summary, "memory") == found
    assert cached_settings(summary, "turn") is None


def test_another_machine_build_or_model_measures_anew(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_settings(summary, "memory")
    other = gemma2.Summary(
        **{**vars(summary), "tensors": summary.tensors[:-1]},
    )
    assert cached_settings(other, "memory") is None
    for name in ("name", "thread_choices"):
        with monkeypatch.context() as patch:
            patch.setattr(hardware, name, lambda: "another")
            assert cached_settings(summary, "memory") is None
    with monkeypatch.context() as patch:
        patch.setattr(build_info, "library", lambda: ("0.0.1", "", False))
        assert cached_settings(summary, "memory") is None
    with monkeypatch.context() as patch:
        patch.setattr(build_info, "compiler", lambda: ("Clang", "1.0"))
        assert cached_settings(summary, "memory") is None
    assert cached_settings(summary, "memory") is not None


@pytest.mark.parametrize(
    "damage",
    [
        {"n_threads": 0},
        {"n_threads_batch": "2"},
        {"repack": 1},
        {"flash_attention": "maybe"},
        {"n_ubatch": 10**9},
        {"plain_from": 0},
        {"plain_from": True},
        {"plain_from": 64, "repack": False},
        {"unknown": 1},
        {"row_costs": [1, 2]},
        {"row_costs": [1, 2, 3, float("nan")]},
        {"row_costs": None},
    ],
)
def test_a_senseless_memory_is_no_memory(summary: Summary, damage: dict[str, object]) -> None:
    find_settings(summary, "memory")
    place = settings_cache._cache_path(summary, "memory")
    kept = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps({**kept, **damage}), encoding="utf-8")
    assert cached_settings(summary, "memory") is None
    place.write_bytes(b"\xff")
    assert cached_settings(summary, "memory") is None


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
def test_loading_measures_the_first_time_only(demo_gguf: Path) -> None:
    heard: list[float] = []
    with edgesppo.load(demo_gguf, tune="memory", on_tune=heard.append) as model:
        assert model._interior.engine.flash_attention == "on"
        assert model.ask("What is the capital of France?", temperature=0).endswith("Paris.")
    assert heard[-1] == 1
    heard.clear()
    edgesppo.load(demo_gguf, tune="memory", on_tune=heard.append).close()
    edgesppo.load(demo_gguf, tune="off", on_tune=heard.append).close()
    assert heard == []


@pytest.mark.parametrize(("before", "during"), [(0.4, 0.0), (0.0, 0.4), (None, 0.4)])
def test_what_was_measured_beside_busy_programs_is_used_but_not_kept(
    summary: Summary,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    before: float | None,
    during: float,
) -> None:
    monkeypatch.setattr(load, "others", lambda: before)
    monkeypatch.setattr(load.LoadMeter, "others", lambda _: during)
    found, _ = choose.choose_settings(summary, LoadOptions(tune="memory"))
    assert found.decode_tps is not None
    assert cached_settings(summary, "memory") is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert "while other programs used 40% of the processors: used now, measured again" in line
    monkeypatch.setattr(load, "others", lambda: 0.1)
    monkeypatch.setattr(load.LoadMeter, "others", lambda _: None)
    found, _ = choose.choose_settings(summary, LoadOptions(tune="memory"))
    assert cached_settings(summary, "memory") == found
    assert len(caplog.records) == 1


def test_ctrl_c_while_measuring_leaves_no_half_memory(summary: Summary) -> None:
    def stop(share: float) -> None:
        if share:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_settings(summary, "turn", stop)
    assert cached_settings(summary, "turn") is None


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
        patch.setattr(choose, "_uses_gpu", lambda _: True)
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
