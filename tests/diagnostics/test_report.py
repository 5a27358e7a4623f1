"""`edgesppo doctor --report`: figures of a machine, and nothing that says whose it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgesppo.gguf import gemma2
from edgesppo.planning import run_config
from edgesppo.tuning import bandwidth, settings_cache
from tests.support.command_line import run

if TYPE_CHECKING:
    from pathlib import Path

PERSON, HOST, TOKEN, MODEL = "ada-lovelace", "analytical-engine", "hf_aVerySecretToken", "my-diary"


@pytest.fixture
def whose(tmp_path: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody with a name, a host, a token and a model of her own, and settings."""
    home = tmp_path / PERSON
    home.mkdir()
    for name in ("EDGESPPO_HOME", "HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(home))
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, PERSON)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HOSTNAME", HOST)
    monkeypatch.setenv("HF_ENDPOINT", f"https://{PERSON}:{TOKEN}@{HOST}.example.org")
    monkeypatch.setenv("EDGESPPO_API_KEY", f"{PERSON}:{TOKEN}")
    monkeypatch.setattr("platform.node", lambda: HOST)
    monkeypatch.setattr("socket.gethostname", lambda: HOST)
    monkeypatch.setattr("platform.release", lambda: f"6.12.3-{HOST}")
    monkeypatch.setattr(bandwidth.bandwidth, "__defaults__", (1 << 20,))
    monkeypatch.setattr(settings_cache, "is_small", lambda _: False)
    monkeypatch.setattr("edgesppo.diagnostics.report.is_small", lambda _: False)
    shutil.copy(demo_gguf, home / f"{MODEL}.gguf")
    assert run("import", home / f"{MODEL}.gguf").exit_code == 0
    measured = replace(run_config.default_config(), flash_attention="on", prefill_tps=90.5)
    summary = gemma2.load_summary(home / f"{MODEL}.gguf")
    settings_cache.store(summary, "turn", replace(measured, decode_tps=12.25))
    return home


def test_it_has_the_measured_rates_and_nothing_that_names_anybody(
    whose: Path, tmp_path: Path
) -> None:
    result = run("doctor", "--report", whose / "report.json")
    assert f"Wrote {whose / 'report.json'}" in result.stderr
    text = (whose / "report.json").read_text(encoding="utf-8")
    for secret in (PERSON, HOST, TOKEN, MODEL, str(tmp_path), "sppo-iter3", "/", "\\"):
        assert secret.lower() not in text.lower(), secret
    found = json.loads(text)
    assert found["system"]["release"] == "6.12.3"
    assert found["memory"]["total"] > found["memory"]["bandwidth"] // 1000 > 0
    assert found["library"]["version"] == found["packages"]["llama-cpp-python"]
    assert found["checks"]["library"] == ["ok"]
    (model,) = found["models"]
    assert (model["type"], model["bytes"]) == ("Q4_K_M", (whose / "my-diary.gguf").stat().st_size)
    assert model["measured"]["turn"]["decode_tps"] == 12.25
    assert 3_000_000 < model["parameters"] < 4_500_000


def test_the_plants_are_where_doctor_itself_finds_them(whose: Path) -> None:
    shown = run("doctor").output
    assert PERSON in shown.replace("\n", "")
    (whose / f"{MODEL}.gguf").unlink()
    assert MODEL in run("doctor").output


@pytest.mark.usefixtures("whose")
def test_what_is_wrong_is_reported_by_its_name_alone(whose: Path) -> None:
    (whose / f"{MODEL}.gguf").unlink()
    result = run("doctor", "--report", whose / "report.json", "--json")
    assert result.exit_code == 1
    found = json.loads((whose / "report.json").read_text())
    assert (found["checks"]["model"], found["models"]) == (["fail"], [])


@pytest.mark.usefixtures("whose")
def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    result = run("doctor", "--report", mine, "--json")
    assert result.exit_code == 1
    assert "exists; give another name" in result.output
    assert mine.read_text() == "mine"
    result = run("doctor", "--report", tmp_path / "no" / "report.json")
    assert "No such file or directory" in result.stderr
