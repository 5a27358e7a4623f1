"""While answers decode far too slowly, fewer threads are tried, and what is faster is kept."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo import SamplingParams
from edgesppo.engine import runner
from edgesppo.engine.engine import Engine
from edgesppo.engine.pace import Pace
from edgesppo.errors import OutOfMemory
from edgesppo.llama.context import Context
from edgesppo.planning import run_config
from edgesppo.system import memory_guard
from edgesppo.system.load import LoadMeter

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.loaded_model import LoadedModel


class Machine(LoadMeter):
    """A machine whose clock, load and rates the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.share: float | None = 0.0
        self.rates: Callable[[int], float] = lambda _: 10.0

    def others(self) -> float | None:
        return self.share

    def pace(self, n: int = 2, measured: float | None = 10.0, *, fixed: bool = False) -> Pace:
        return Pace(n, n, measured, fixed=fixed, load=self, clock=lambda: self.now)

    def run(self, pace: Pace, windows: int = 1) -> list[int]:
        """The numbers of threads that these windows were run with."""
        used = []
        for _ in range(windows):
            used.append(pace.n_threads)
            seconds = 4 / self.rates(pace.n_threads)
            self.now += seconds
            pace.note(4, seconds)
        return used

    def is_busy(self, share: float | None = 0.5) -> None:
        """One thread is faster than two from now on."""
        self.share, self.rates = share, lambda n: 8.0 if n == 1 else 2.0


def test_at_the_measured_rate_nothing_is_tried() -> None:
    machine = Machine()
    pace = machine.pace()
    machine.run(pace, 20)
    machine.rates = lambda _: 5.1
    assert set(machine.run(pace, 20)) == {2}
    assert pace.notice is None


def test_one_slow_window_is_no_reason() -> None:
    machine = Machine()
    pace = machine.pace()
    for rate in (2.0, 10.0) * 5:
        machine.rates = lambda _, rate=rate: rate  # type: ignore[misc]
        assert machine.run(pace) == [2]
    assert pace.n_threads == 2


def test_fewer_threads_are_kept_where_they_are_faster_and_one_line_says_why() -> None:
    machine = Machine()
    pace = machine.pace()
    machine.is_busy()
    assert machine.run(pace, 6) == [2, 2, 1, 1, 1, 1]
    assert (pace.n_threads, pace.n_threads_batch) == (1, 1)
    assert pace.notice == (
        "other programs use 50% of the processors: answers decode at 2.0 tokens/s instead of 10.0; "
        "with 1 thread instead of 2 it is 8.0, so that is used for now"
    )
    pace.notice = None
    machine.run(pace, 200)
    assert pace.notice is None


def test_of_several_numbers_of_threads_the_fastest_is_kept() -> None:
    machine = Machine()
    pace = Pace(8, 16, 40.0, load=machine, clock=lambda: machine.now)
    machine.share, machine.rates = 0.4, lambda n: {8: 5.0, 6: 9.0, 4: 20.0, 2: 12.0}[n]
    assert machine.run(pace, 5) == [8, 8, 6, 4, 2]
    assert (pace.n_threads, pace.n_threads_batch) == (4, 12)


def test_where_fewer_threads_do_not_help_all_are_used_and_trying_gets_rarer() -> None:
    machine = Machine()
    pace = machine.pace()
    machine.share, machine.rates = 0.6, lambda n: 1.0 * n
    used = machine.run(pace, 500)
    assert pace.n_threads == 2
    assert 2 <= used.count(1) <= 8
    assert pace.notice is not None
    assert "use 60% of the processors" in pace.notice
    assert pace.notice.endswith("fewer threads do not help; close them")


def test_a_long_context_on_an_idle_machine_is_no_news() -> None:
    machine = Machine()
    pace = machine.pace()
    machine.rates = lambda _: 4.0
    machine.run(pace, 50)
    assert pace.notice is None


def test_all_threads_come_back_when_the_others_are_done() -> None:
    machine = Machine()
    pace = machine.pace()
    machine.is_busy()
    machine.run(pace, 200)
    assert pace.n_threads == 1, "as long as others are busy"
    machine.share, machine.rates = 0.0, lambda n: 5.0 * n
    assert 2 in machine.run(pace, 200)
    assert pace.n_threads == 2


@pytest.mark.parametrize("share", [None, 0.1])
def test_where_the_load_is_unknown_all_threads_are_tried_again_ever_more_rarely(
    share: float | None,
) -> None:
    machine = Machine()
    pace = machine.pace()
    machine.is_busy(share)
    used = machine.run(pace, 2000)  # half a second each
    assert used[-1] == 1
    assert 4 <= used.count(2) <= 8
    assert pace.notice is not None
    assert "perhaps because other programs are busy" in pace.notice


def test_without_a_measured_rate_the_best_so_far_is_expected() -> None:
    machine = Machine()
    pace = machine.pace(measured=None)
    machine.run(pace, 3)
    machine.is_busy(None)
    machine.run(pace, 3)
    assert pace.n_threads == 1


def test_a_model_that_was_never_measured_and_starts_beside_busy_programs_tries_fewer() -> None:
    machine = Machine()
    pace = machine.pace(measured=None)
    machine.is_busy()
    machine.run(pace, 3)
    assert pace.n_threads == 1
    assert pace.notice is not None
    assert "at 2.0 tokens/s; with 1 thread" in pace.notice


@pytest.mark.parametrize(
    ("rates", "others", "reports"),
    [
        ([10.0] * 100, 0.0, 0),
        ([*[6.0] * 39, 10.0, *[6.0] * 39, 10.0], 0.0, 0),  # a long context
        ([6.0] * 100, 0.0, 1),
        ([15.0] * 100, 0.0, 1),
        ([15.0] * 100, 0.5, 0),
    ],
)
def test_a_measured_rate_is_contradicted_by_those_of_a_quiet_machine_alone(
    rates: list[float], others: float, reports: int
) -> None:
    heard: list[int] = []
    machine = Machine()
    machine.share = others
    pace = Pace(2, 2, 10.0, load=machine, on_contradiction=lambda: heard.append(1))
    for rate in rates:
        pace.note(10, 10 / rate)
    assert len(heard) == reports


def test_threads_that_were_asked_for_stay_and_are_told_of() -> None:
    machine = Machine()
    pace = machine.pace(measured=None, fixed=True)
    machine.is_busy()
    assert set(machine.run(pace, 100)) == {2}
    assert pace.notice is not None
    assert pace.notice.endswith("fewer threads than 2 may be faster (--threads)")


class Clock:
    """Counts a second at every look, so that every window is full after a few steps."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


def answer(engine: Engine, prompt: list[int]) -> list[int]:
    request = engine.add(engine.prepare(prompt, SamplingParams(temperature=0, max_tokens=60)))
    return [event.token for event in engine.stream(request) if event.token is not None]


class Ladder(Pace):
    """Uses another number of threads after every window."""

    def note(self, steps: int, seconds: float) -> None:
        assert steps >= 4
        assert seconds > 0
        self.n_threads = 3 - self.n_threads


def test_the_threads_of_an_answer_change_and_the_answer_does_not(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit without flash attention, which sums in another order on other threads."""
    used: list[int] = []
    change = Context.set_threads
    prompt = demo.tokenize("Tell me how to convert a checkpoint, please.", chat=True)
    plain = Engine(
        demo._interior.engine.model, n_threads=2, flash_attention="off", draft_costs=None
    )
    expected = answer(plain, prompt)
    plain.close()
    monkeypatch.setattr(runner, "time", Clock())
    monkeypatch.setattr(
        Context, "set_threads", lambda own, n, batch: used.append(n) or change(own, n, batch)
    )
    pace = Ladder(2, 2, None)
    engine = Engine(
        demo._interior.engine.model, n_threads=2, flash_attention="off", draft_costs=None, pace=pace
    )
    assert answer(engine, prompt) == expected
    engine.close()
    assert used[:4] == [1, 2, 1, 2]


class Broken(Pace):
    """Fails at every window."""

    def note(self, steps: int, seconds: float) -> None:
        raise ZeroDivisionError(f"{steps} {seconds}")


def test_a_failing_pace_spoils_no_answer(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "time", Clock())
    engine = Engine(
        demo._interior.engine.model, n_threads=1, draft_costs=None, pace=Broken(1, 1, None)
    )
    assert answer(engine, demo.tokenize("Who are you?", chat=True))
    engine.close()


def test_without_memory_for_more_threads_the_fewer_stay(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutOfMemory("full")

    pace = Ladder(2, 2, None)
    engine = Engine(demo._interior.engine.model, n_threads=2, draft_costs=None, pace=pace)
    prompt = demo.tokenize("Tell me how to convert a checkpoint, please.", chat=True)
    answer(engine, prompt)
    monkeypatch.setattr(runner, "time", Clock())
    request = engine.add(engine.prepare(prompt, SamplingParams(temperature=0, max_tokens=60)))
    stream = engine.stream(request)
    while pace.n_threads == 2:
        next(stream)
    monkeypatch.setattr(memory_guard, "require", full)
    for _ in stream:
        assert pace.n_threads == 1
    engine.close()


def test_the_line_reaches_the_logger_once_and_outside_of_the_engines_lock(
    demo: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    pace = Pace(1, 1, None)
    engine = Engine(demo._interior.engine.model, n_threads=1, draft_costs=None, pace=pace)
    free: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.levelno == logging.WARNING
            free.append(not engine._lock._is_owned())  # type: ignore[attr-defined]

    logger, handler = logging.getLogger("edgesppo"), Handler()
    logger.addHandler(handler)
    pace.notice = "slow"
    answer(engine, demo.tokenize("Who are you?", chat=True))
    logger.removeHandler(handler)
    engine.close()
    assert free == [True]
    assert [record.getMessage() for record in caplog.records] == ["slow"]


def test_what_is_loaded_with_more_threads_has_a_pace_and_one_thread_none(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo._interior.engine._stepper.runner.pace is None
    path = demo._interior.engine.model.path
    with edgesppo.load(path, n_threads=2) as model:
        pace = model._interior.engine._stepper.runner.pace
        assert pace is not None
        assert (pace.n_threads, pace._fixed, pace._measured) == (2, True, None)
    monkeypatch.setattr(run_config, "_WORTH_TUNING", 0)
    monkeypatch.setattr(run_config.hardware, "cores", lambda: 2)
    with edgesppo.load(path, tune="off") as model:
        pace = model._interior.engine._stepper.runner.pace
        assert pace is not None
        assert (pace.n_threads, pace._fixed) == (2, False)
