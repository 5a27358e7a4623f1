"""The fastest settings are found by running the model; Ctrl-C leaves nothing half done."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.planning import run_config
from edgesppo.system import hardware
from edgesppo.tuning import autotune, bench, measure, second_context
from edgesppo.tuning.autotune import Search, find_settings
from edgesppo.tuning.settings_cache import cached_settings

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary


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
    monkeypatch.setattr(bench, "READ", 8 << 20)
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
        assert model._interior.engine._stepper.long_prompts._context is not None
    with edgesppo.load(demo_gguf, tune="off") as model:
        assert model.ask(question, temperature=0, max_tokens=8) == two


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


def test_ctrl_c_while_measuring_leaves_no_half_memory(summary: Summary) -> None:
    def stop(share: float) -> None:
        if share:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_settings(summary, "turn", stop)
    assert cached_settings(summary, "turn") is None
