"""The memory that a model will need is known before it is loaded."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import edgesppo
import edgesppo_convert
from edgesppo.cli import main
from edgesppo.cli.plan import _ORIGINS
from edgesppo.gguf import gemma2
from edgesppo.llama import library
from edgesppo.llama.context import Context
from edgesppo.llama.weights import Weights
from edgesppo.planning import memory_plan, run_config
from edgesppo.planning.run_config import ContextParams, default_config
from edgesppo.system import hardware
from edgesppo.tuning import autotune
from edgesppo.tuning.choose import ORIGINS, LoadOptions, choose_settings
from tests.support.checkpoints import SHAPES, write_checkpoint
from tests.support.tuning import measure_little, remember_two_contexts

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.one_context  # its plans are of one, but for those that say otherwise

MEGABYTE = 2**20
_KV = r"KV buffer size = +([\d.]+) MiB"
SETTINGS = [(512, 1, "f16"), (512, 1, "f32"), (512, 1, "q8_0"), (256, 1, "f16"), (512, 4, "f16")]


@pytest.fixture(scope="module")
def weights(demo_gguf: Path) -> Weights:
    return Weights(demo_gguf)


@pytest.mark.parametrize(("n_ctx", "n_seqs", "cache_type"), SETTINGS)
def test_the_kv_cache_is_what_llama_reports(
    demo_gguf: Path, weights: Weights, n_ctx: int, n_seqs: int, cache_type: str
) -> None:
    params = ContextParams(n_ctx=n_ctx, n_seqs=n_seqs, cache_type=cache_type)
    reported = _reported(_KV, lambda: Context(weights, params).close())
    made = memory_plan.plan_memory(
        gemma2.load_summary(demo_gguf),
        default_config(),
        n_ctx=n_ctx,
        n_seqs=n_seqs,
        n_batch=512,
        cache_type=cache_type,
    )
    assert len(reported) == 2
    assert made.kv / MEGABYTE == pytest.approx(sum(reported), abs=0.02)


def test_a_second_context_counts_with_all_that_it_maps_and_allocates(
    demo_gguf: Path, weights: Weights
) -> None:
    """The file once, the repacked copy once, and two KV caches."""
    n_ubatch = run_config.PREFILL_UBATCH  # both alike
    params = ContextParams(n_ctx=512, n_seqs=2, n_ubatch=n_ubatch)
    caches = 2 * sum(_reported(_KV, lambda: Context(weights, params).close()))
    summary, options = gemma2.load_summary(demo_gguf), {"n_ctx": 512, "n_batch": 512}
    single = replace(default_config(), n_ubatch=n_ubatch)
    one, two = (
        memory_plan.plan_memory(summary, config, n_seqs=1, cache_type="f16", **options)
        for config in (single, replace(single, plain_from=64))
    )
    copied = memory_plan._copied(summary)
    assert copied > 1_000_000
    empty_entries = memory_plan._ENTRY_BYTES * weights.n_vocab
    file_again = two.prefill - (two.kv + two.compute + empty_entries)
    assert two.weights + file_again == summary.data_bytes + copied
    assert 2 * two.kv / MEGABYTE == pytest.approx(caches, abs=0.04)
    assert (one.prefill, two.total - one.total) == (
        0,
        two.prefill + two.kv - one.kv + two.compute - one.compute + two.logits - one.logits,
    )
    assert "a second context for long prompts" in two.explain()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the types are checked on x86 only")
@pytest.mark.parametrize("embedding", ["q6_k", "q4_k"])
def test_the_repacked_weights_are_what_llama_reports(tmp_path: Path, embedding: str) -> None:
    """An embedding of such a type is copied, too, as it is the output."""
    source, out = write_checkpoint(tmp_path / "source", SHAPES["tiny"]), tmp_path / "a.gguf"
    edgesppo_convert.convert(source, out, tensor_types=[f"token_embd={embedding}"])
    buffer = r"CPU_REPACK model buffer size = +([\d.]+) MiB"
    (reported,) = _reported(buffer, lambda: Weights(out).close())
    copied = memory_plan._copied(gemma2.load_summary(out))
    assert copied / MEGABYTE == pytest.approx(reported, abs=0.02)


def test_an_arm_processor_repacks_more_types(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = gemma2.load_summary(demo_gguf)
    monkeypatch.setattr(hardware, "features", lambda: {"asimd", "asimddp"})
    quantized = sum(t.n_bytes for t in summary.tensors if t.type != "F32")
    assert memory_plan._copied(summary) == quantized
    monkeypatch.setattr("sys.platform", "linux")
    options = {"n_ctx": 512, "n_seqs": 1, "n_batch": 512, "cache_type": "f16"}
    alone, beside = (
        memory_plan.plan_memory(summary, default_config(), gpu_layers=layers, **options)
        for layers in (0, 1)
    )
    assert alone.weights > beside.weights == summary.data_bytes, "none is repacked beside a GPU"
    monkeypatch.setattr(hardware, "features", lambda: {"asimd"})  # a Raspberry Pi 4
    assert memory_plan._copied(summary) == 0


def _reported(pattern: str, act: Callable[[], object]) -> list[float]:
    """The numbers in what llama.cpp logs meanwhile."""
    lines: list[str] = []
    listen = library.C.llama_log_callback(lambda _level, text, _data: lines.append(text.decode()))
    library.C.llama_log_set(listen, None)
    act()
    library.C.llama_log_set(library.capture, None)
    return [float(number) for number in re.findall(pattern, "".join(lines))]


def _summary(**keys: int) -> gemma2.Summary:
    """A model of the 9B's shape."""
    shape = {
        "block_count": 42,
        "embedding_length": 3584,
        "feed_forward_length": 14336,
        "attention.head_count_kv": 8,
        "attention.key_length": 256,
        "attention.value_length": 256,
        "attention.sliding_window": 4096,
        **keys,
    }
    named = {f"gemma2.{name}": value for name, value in shape.items()}
    named["tokenizer.ggml.tokens"] = 256_000
    return gemma2.Summary(Path("9b.gguf"), named, 464, 5_755_000_832, 5_761_000_000, (), {})


def _plan(available: int | None, **settings: object) -> memory_plan.MemoryPlan:
    options = {"n_ctx": 4096, "n_seqs": 1, "n_batch": 512, "cache_type": "f16", **settings}
    return replace(
        memory_plan.plan_memory(_summary(), default_config(), **options), available=available
    )  # type: ignore[arg-type]


def test_every_row_of_logits_counts(demo_gguf: Path) -> None:
    options = {"n_ctx": 512, "n_batch": 512, "n_seqs": 4, "cache_type": "f16"}
    summary = gemma2.load_summary(demo_gguf)
    few, many = (
        memory_plan.plan_memory(summary, default_config(), n_outputs=n, **options)  # type: ignore[arg-type]
        for n in (1, 4096)
    )
    assert few.logits == 4 * 4 * 2560
    assert many.logits == many.compute == 4 * 4096 * 2560, "they are computed, and then copied"
    assert few.compute < many.compute


def test_the_9bs_cache_takes_344064_bytes_a_token() -> None:
    assert _plan(None).kv == 4096 * 344_064


def test_the_window_saves_memory_beyond_its_length() -> None:
    assert _plan(None, n_ctx=8192).kv < 2 * _plan(None, n_ctx=4096).kv * 0.85


@pytest.mark.parametrize(
    ("gigabytes", "advice"),
    [(16, None), (7.2, "q8_0"), (6.5, "n_ctx of"), (4, "smaller model")],
)
def test_a_plan_that_does_not_fit_says_what_to_change(gigabytes: float, advice: str | None) -> None:
    made = _plan(int(gigabytes * 1e9))
    assert made.fits == (advice is None)
    assert (advice or "are available to this process") in made.explain()
    total, *parts = (
        float(n.replace(",", "")) for n in re.findall(r"([\d,]+) MB", made.explain())[:6]
    )
    assert sum(parts) == pytest.approx(total, abs=len(parts)), "what is listed adds up"


@pytest.mark.parametrize("n_ctx", [512, 4096, 8192])
@pytest.mark.parametrize("cache_type", ["f16", "f32", "q8_0"])
def test_the_advice_fits_and_asks_for_no_more_than_needed(n_ctx: int, cache_type: str) -> None:
    """However much is available, following the advice makes the model fit, if anything can."""
    need = _plan(None, n_ctx=n_ctx, cache_type=cache_type)
    advices = set()
    for free in range(need.total - need.kv - 200_000_000, need.total, 25_000_000):
        made = _plan(free, n_ctx=n_ctx, cache_type=cache_type)
        advice = made.advice()
        advices.add(advice.split()[-1])
        smaller = re.search(r"n_ctx of (\d+) \(--n-ctx \1\)", advice)
        if "q8_0" in advice:
            assert cache_type != "q8_0"
            assert _plan(free, n_ctx=n_ctx, cache_type="q8_0").fits
        elif smaller is not None:
            assert int(smaller[1]) < n_ctx
            assert _plan(free, n_ctx=int(smaller[1]), cache_type=cache_type).fits
        else:
            # What a shorter context saves of the computation is not promised.
            spared = made.compute - _plan(free, n_ctx=256).compute
            least = _plan(free, n_ctx=256, cache_type=cache_type)
            assert n_ctx <= 256 or least.total + spared > free
    assert len(advices) > 1


@pytest.mark.parametrize("n_ctx", [0, 10**9])
def test_an_absurd_context_is_a_usage_error_and_not_one_of_memory(
    demo_gguf: Path, n_ctx: int
) -> None:
    for wanted in (LoadOptions(n_ctx=n_ctx), LoadOptions(n_ctx=n_ctx, force=True)):
        with pytest.raises(edgesppo.UsageError, match=r"n_ctx \(--n-ctx\) is .* from 16 to 512"):
            choose_settings(gemma2.load_summary(demo_gguf), wanted)


def test_a_model_that_will_not_fit_is_refused_unless_forced(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 10_000_000)
    with pytest.raises(edgesppo.OutOfMemory, match=r"needs .* MB of memory .*--force"):
        edgesppo.load(demo_gguf)
    edgesppo.load(demo_gguf, force=True).close()


def test_a_draft_model_counts_with_all_its_memory(
    demo_gguf: Path, demo_f32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, second = gemma2.load_summary(demo_gguf), gemma2.load_summary(demo_f32)
    _, alone = choose_settings(summary, LoadOptions())
    _, both = choose_settings(summary, LoadOptions(draft=second))
    _, own = choose_settings(second, LoadOptions())
    assert both.total == alone.total + both.draft
    # Its prompts go in smaller steps, so it computes in less.
    assert own.weights + own.kv < both.draft < own.weights + own.kv + own.compute + own.logits
    room = _least(monkeypatch, demo_gguf).total
    monkeypatch.setattr(memory_plan, "available_memory", lambda: room)
    edgesppo.load(demo_gguf).close()
    with pytest.raises(edgesppo.OutOfMemory, match=r"the draft model \d+ MB.* without the draft"):
        edgesppo.load(demo_gguf, drafts=demo_f32)
    edgesppo.load(demo_gguf, drafts=demo_f32, force=True).close()


def _least(monkeypatch: pytest.MonkeyPatch, path: Path) -> memory_plan.MemoryPlan:
    """The plan of the configuration that takes the least memory."""
    with monkeypatch.context() as patch:
        patch.setattr(memory_plan, "available_memory", lambda: 1)
        return choose_settings(gemma2.load_summary(path), LoadOptions(force=True))[1]


def _printed(*arguments: str) -> tuple[str, int]:
    result = CliRunner().invoke(main, ["plan", *arguments])
    assert result.stderr == ""
    return result.stdout, result.exit_code


def test_the_command_counts_the_draft_model(
    demo_gguf: Path, demo_f32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, code = _printed(str(demo_gguf), "--draft", str(demo_f32))
    assert re.search(rf"^  draft +\d+\.\d MB, for {demo_f32.name}$", text, re.MULTILINE)
    assert code == 0
    made = json.loads(_printed(str(demo_gguf), "--draft", str(demo_f32), "--json")[0])
    assert made["draft"] > made["weights"]
    assert "draft" not in _printed(str(demo_gguf))[0]
    room = _least(monkeypatch, demo_gguf).total
    monkeypatch.setattr(memory_plan, "available_memory", lambda: room)
    text, code = _printed(str(demo_gguf), "--draft", str(demo_f32))
    assert code == 1
    assert "  fits      no: run without the draft model (--draft)" in text
    assert _printed(str(demo_gguf))[1] == 0


def test_the_lines_of_the_command_add_up_under_the_models_name() -> None:
    assert CliRunner().invoke(main, ["tokenize", "demo", "x"]).exit_code == 0  # converts it
    text, _ = _printed("demo")
    assert text.splitlines()[0] == "demo"
    sizes = {label: float(n) for label, n in re.findall(r"^  (\D+?) +([\d.]+) MB", text, re.M)}
    total = sizes.pop("total")
    assert list(sizes) == ["weights", "KV cache", "compute", "logits", "program"]
    assert sum(sizes.values()) == pytest.approx(total, abs=0.3)
    found = json.loads(_printed("demo", "--json")[0])
    parts = ("weights", "kv", "compute", "logits", "draft", "prefill", "program")
    assert sum(found[part] for part in parts) == found["total"]


def test_the_command_tells_of_a_second_context_and_of_no_memory_for_it(
    demo_gguf: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh_home.is_dir()
    remember_two_contexts(monkeypatch, demo_gguf, "turn")
    text, code = _printed(str(demo_gguf))
    assert code == 0
    assert re.search(r"^  prompts +\d+\.\d MB, a second context for long ones$", text, re.M)
    assert "weights repacked, and plain for 64 new tokens or more, flash" in text
    assert "measured here: prefill 100.0 t/s" in text
    made = json.loads(_printed(str(demo_gguf), "--json")[0])
    assert made["prefill"] > 0
    monkeypatch.setattr(memory_plan, "available_memory", lambda: made["total"] - 1)
    text, code = _printed(str(demo_gguf))
    assert code == 0
    assert "weights repacked, flash" in text
    assert "second context,\n            for which there is not enough memory" in text
    assert "a second context for long ones" not in text


def test_the_command_says_where_the_settings_come_from(
    demo_gguf: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh_home.is_dir()
    measure_little(monkeypatch)
    assert "one thread: a model this small" in _printed(str(demo_gguf))[0]
    assert "as asked for, not measured" in _printed(str(demo_gguf), "--threads", "2")[0]
    monkeypatch.setattr(run_config, "_WORTH_TUNING", 0)
    assert "--tune off" in _printed(str(demo_gguf), "--tune", "off")[0]
    text, _ = _printed(str(demo_gguf), "--tune", "memory")
    assert "llama.cpp's defaults: not measured yet; the first run" in text
    autotune.find_settings(gemma2.load_summary(demo_gguf), "memory")
    text, _ = _printed(str(demo_gguf), "--tune", "memory")
    assert "measured here: prefill" in text
    assert "llama.cpp's defaults" not in text
    assert set(_ORIGINS) == set(ORIGINS)
