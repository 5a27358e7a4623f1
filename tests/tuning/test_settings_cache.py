"""What was measured is remembered for this machine, build and model, while it can be trusted."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgesppo.gguf import gemma2
from edgesppo.llama import build_info
from edgesppo.planning.run_config import (
    RunConfig,
)
from edgesppo.system import hardware, load, notices
from edgesppo.tuning import choose, settings_cache
from edgesppo.tuning.autotune import find_settings
from edgesppo.tuning.choose import LoadOptions
from edgesppo.tuning.settings_cache import cached_settings

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary


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


def test_settings_that_cannot_be_kept_are_told_with_what_leaves_that_out(
    summary: Summary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(settings_cache, "cache_dir", lambda: tmp_path / "file")
    with notices.collected():
        settings_cache.store(summary, "turn", RunConfig(1, 1, True, "on", 512, 100.0, 10.0))
        (line,) = notices.take()
    assert str(tmp_path / "file" / "tuning") in line
    assert "--tune off" in line


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


DAMAGED: tuple[dict[str, object], ...] = (
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
)


def test_a_senseless_memory_is_no_memory(summary: Summary) -> None:
    find_settings(summary, "memory")
    place = settings_cache._cache_path(summary, "memory")
    kept = json.loads(place.read_text(encoding="utf-8"))
    assert cached_settings(summary, "memory") is not None
    for damage in DAMAGED:
        place.write_text(json.dumps({**kept, **damage}), encoding="utf-8")
        assert cached_settings(summary, "memory") is None, damage
    place.write_bytes(b"\xff")
    assert cached_settings(summary, "memory") is None


@pytest.mark.parametrize(("before", "during"), [(0.4, 0.0), (0.0, 0.4), (None, 0.4)])
def test_what_was_measured_beside_busy_programs_is_used_until_they_rest(
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
    (line,) = [record.getMessage() for record in caplog.records]
    assert "other programs used 40% of the processors; they are used for now, and measured" in line
    monkeypatch.setattr(load, "others", lambda: 0.4)
    assert cached_settings(summary, "memory") == found
    monkeypatch.setattr(load, "others", lambda: 0.1)
    assert cached_settings(summary, "memory") == found, "this process does not measure twice"
    monkeypatch.setattr(settings_cache, "_STARTED_AT", time.time())  # but the next one does
    assert cached_settings(summary, "memory") is None
    monkeypatch.setattr(load.LoadMeter, "others", lambda _: None)
    found, _ = choose.choose_settings(summary, LoadOptions(tune="memory"))
    assert cached_settings(summary, "memory") == found
    assert len(caplog.records) == 1
