"""`edgesppo doctor` finds problems before they end the program, and says how to fix each."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.diagnostics import doctor, library
from edgesppo.gguf import gemma2
from edgesppo.llama import build_info
from edgesppo.lockfile import toml
from edgesppo.planning import memory_plan, run_config
from edgesppo.store import layout
from edgesppo.store.expected import expected_summary
from edgesppo.system import hardware, load
from edgesppo.tuning import choose
from tests.support.fake_hub import REPOSITORY
from tests.support.tuning import remember_two_contexts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_hub import FakeHub

NAME = "sppo-iter3"
INFO = "CPU : AVX = 1 | AVX2 = 1 | FMA = 0 | AVX512 = 1 | BMI2 = 1 | "


def findings(code: int = 0) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == code, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    for finding in found:
        assert finding["advice"] or finding["state"] == "ok", finding
    return found


def one(about: str, code: int = 0) -> dict[str, Any]:
    (found,) = [finding for finding in findings(code) if finding["about"] == about]
    return found


@pytest.mark.usefixtures("fresh_home")
def test_what_the_build_has_and_the_processor_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build_info, "query", lambda: (0, INFO))
    monkeypatch.setattr(hardware, "features", lambda: {"avx", "avx2", "bmi2"})
    found = one("features", 1)
    assert (found["state"], "uses AVX512, which this" in found["text"]) == ("fail", True)
    assert found["advice"] == "compile it anew: edgesppo build"
    monkeypatch.setattr(hardware, "features", lambda: {"avx", "avx2", "bmi2", "avx512f", "fma"})
    found = one("features")
    assert (found["state"], "not FMA, which this processor has" in found["text"]) == ("warn", True)
    monkeypatch.setattr(hardware, "features", lambda: set())
    assert one("features")["state"] == "ok"


@pytest.mark.usefixtures("fresh_home")
@pytest.mark.parametrize(
    ("inside", "state", "said"),
    [
        (b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0", "warn", "compiled by GCC 12.2.0, whose"),
        (b"GCC: (GNU) 15.1.1\0", "ok", "compiled by GCC 15.1.1"),
        (b"GCC: (GNU) 9.4.0\0clang version 22.1.8 (zig)\0", "ok", "compiled by Clang 22.1.8"),
        (b"", "ok", "it does not tell what compiled it"),
    ],
)
def test_what_compiled_the_library_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bytes, state: str, said: str
) -> None:
    (tmp_path / "library.so").write_bytes(b"\x7fELF" + inside)
    found = build_info.compiler_of(tmp_path / "library.so")
    monkeypatch.setattr(build_info, "compiler", lambda: found)
    monkeypatch.setattr(library, "ziglang_supports_machine", lambda: True)
    told = one("compiler")
    assert (told["state"], told["text"].startswith(said)) == (state, True)
    assert told["advice"] == (None if state == "ok" else "compile it anew: edgesppo build")


@pytest.mark.usefixtures("fresh_home")
def test_a_build_with_openmp_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "features", lambda: {"avx", "avx2", "bmi2", "avx512f", "fma"})
    monkeypatch.setattr(build_info, "query", lambda: (0, INFO + "OPENMP = 1 | "))
    found = one("openmp")
    assert (found["state"], found["advice"]) == ("warn", "compile it anew: edgesppo build")
    monkeypatch.setattr(build_info, "query", lambda: (0, INFO + "OPENMP = 1 | CUDA : ARCHS = 90"))
    assert one("openmp")["advice"] == "compile it anew: edgesppo build --backend cuda"
    assert one("compiler")["state"] == "ok"
    monkeypatch.setattr(build_info, "query", lambda: (0, INFO + "OPENMP = 1 | ROCm : X = 1"))
    advice = one("openmp")["advice"]
    assert re.search(r"--force-reinstall .*--no-binary (\S+) \1==[\d.]+ -C .*GGML_HIP=ON$", advice)
    monkeypatch.setattr("sys.frozen", True, raising=False)
    assert one("openmp")["advice"].endswith("make it anew: make bundle")


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
@pytest.mark.usefixtures("fresh_home")
def test_a_library_that_ends_its_process_does_not_end_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    die = f"import os, signal; os.kill(os.getpid(), {int(signal.SIGILL)})"
    build_info._ask.cache_clear()
    monkeypatch.setattr(build_info, "_PROGRAM", die)
    found = one("features", 1)
    assert "ended its process by an instruction that this processor lacks" in found["text"]
    build_info._ask.cache_clear()
    monkeypatch.setattr(build_info, "_PROGRAM", "raise ImportError('no libllama')")
    assert "with status 1: ImportError: no libllama" in one("features", 1)["text"]
    build_info._ask.cache_clear()


def test_the_library_is_not_loaded_in_the_process_that_asks() -> None:
    import subprocess

    ask = "import sys; from edgesppo.diagnostics import doctor as d; d.examine()"
    ask += "; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_that_lead_out_of_the_store_are_found(fresh_home: Path, tmp_path: Path) -> None:
    folder = fresh_home / "models" / "a--b"
    folder.mkdir(parents=True)
    (folder / "inside").symlink_to(folder)
    assert not [finding for finding in findings() if finding["about"] == "link"]
    (folder / "out").symlink_to(tmp_path)
    assert str(tmp_path) in one("link")["text"]
    assert str(folder / "out") in one("link")["advice"]


def test_a_changed_size_is_found_and_that_hashes_were_not_looked_at_is_said(hub: FakeHub) -> None:
    CliRunner().invoke(main, ["pull", NAME, "--accept-license"])
    assert "edgesppo verify --all" in one("models")["text"]
    (path,) = layout.root().glob(f"{REPOSITORY.replace('/', '--')}/*/config.json")
    path.write_bytes(path.read_bytes() + b" ")
    found = one("model", 1)
    assert "config.json of sppo-iter3 has" in found["text"]
    assert found["advice"] == "edgesppo pull sppo-iter3 --repair"
    assert hub.url


@pytest.mark.usefixtures("fresh_home")
@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(5, "Input/output error")])
def test_a_check_that_raises_says_what_to_do_too(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> int:
        raise error

    monkeypatch.setattr(hardware, "total_memory", fail)
    assert "edgesppo doctor" in one("memory", 1)["advice"]


@pytest.mark.usefixtures("fresh_home")
def test_a_throttled_raspberry_pi_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_PLATFORM", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.throttled() == []
    if os.name != "nt":
        program = tmp_path / "vcgencmd"
        program.write_text("#!/bin/sh\necho throttled=0x50005\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        found = one("throttle")
        said = "the voltage is too low now, it is throttled now, the voltage was too low"
        assert found["text"] == f"{said}, it was throttled"
        program.write_text("#!/bin/sh\necho no such command >&2; exit 1\n")
        assert hardware.throttled() == []
    kernel = tmp_path / "soc@107c000000" / "soc@107c000000:firmware" / "get_throttled"
    kernel.parent.mkdir(parents=True)
    kernel.write_text("80008\n")
    assert one("throttle")["text"] == "it is too hot now, it was too hot"


@pytest.mark.usefixtures("fresh_home")
def test_busy_programs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert one("load")["text"] == "other programs use 0% of the processors"
    monkeypatch.setattr(load, "others", lambda: 0.53)
    found = one("load")
    assert (found["state"], found["text"]) == ("warn", "other programs use 53% of the processors")
    assert "answers are slower" in found["advice"]
    monkeypatch.setattr(load, "others", lambda: 0.2)
    assert one("load")["state"] == "ok"
    monkeypatch.setattr(load, "others", lambda: None)
    assert (one("load")["state"], "does not tell" in one("load")["text"]) == ("ok", True)


def test_every_finding_that_is_not_well_has_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_tested_pythons", lambda: ["2.7"])
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 7_500_000_000)
    monkeypatch.setattr(doctor, "_REAL_DISK", 1 << 60)
    monkeypatch.setattr(hardware, "usable_cpus", lambda: 0)
    entry = toml.read().models["sppo-iter3"]
    plan = memory_plan.plan_memory(
        expected_summary(entry),
        run_config.low_memory_config(),
        n_ctx=8192,
        n_seqs=1,
        n_batch=512,
        cache_type="f16",  # type: ignore[arg-type]
    )
    assert doctor._plan_9b() == plan
    found = {finding["about"]: finding for finding in findings()}
    told = ("python", "memory", "disk", "cores")
    assert {found[about]["state"] for about in told} == {"warn"}
    assert re.search(r"needs 8\.\d GB for 8,192 tokens: .*--n-ctx", found["memory"]["advice"])


def test_models_that_run_with_a_second_context_or_lack_memory_for_it_are_told(
    fresh_home: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh_home.is_dir()
    assert CliRunner().invoke(main, ["import", str(demo_gguf), "--name", "mine"]).exit_code == 0
    monkeypatch.setattr(run_config, "_WORTH_TUNING", 0)
    assert not [finding for finding in findings() if finding["about"] == "contexts"]
    remember_two_contexts(monkeypatch, demo_gguf, "turn")
    found = one("contexts")
    assert (found["state"], found["text"]) == (
        "ok",
        "mine computes 64 new tokens or more in a second one",
    )
    _, plan = choose.choose_settings(gemma2.load_summary(demo_gguf), choose.LoadOptions())
    monkeypatch.setattr(memory_plan, "available_memory", lambda: plan.total - 1)
    found = one("contexts")
    assert found["state"] == "warn"
    assert "mine has no memory for a second one" in found["text"]
