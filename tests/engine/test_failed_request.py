"""A request that fails ends alone; the others of its batch go on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.engine.runner import Runner
from edgesppo.errors import NativeError, OutOfMemory
from edgesppo.llama.context import Context
from edgesppo.sampling.params import SamplingParams

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.engine.request import Request
    from edgesppo.llama.batch import Batch


@pytest.mark.parametrize("fault", [NativeError("a fault"), MemoryError()])
def test_a_fault_in_sampling_is_of_one_request(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    sample = Runner.sample

    def fail_at_five(runner: Runner, request: Request, entry: int) -> tuple[list[int], str | None]:
        if request is bad and request.n_generated == 5:
            raise fault
        return sample(runner, request, entry)

    monkeypatch.setattr(Runner, "sample", fail_at_five)
    with edgesppo.load(demo_gguf, n_seqs=2) as model:
        engine = model._interior.engine
        params = SamplingParams(temperature=0, max_tokens=12)
        prompts = [model.tokenize(text, chat=True) for text in ("My name is Ada.", "Who are you?")]
        good, bad = (engine.add(engine.prepare(prompt, params)) for prompt in prompts)
        while good.finish_reason is None or bad.finish_reason is None:
            engine.step()
        assert good.error is None
        assert good.finish_reason in ("stop", "length")
        kind = type(fault) if isinstance(fault, NativeError) else OutOfMemory
        assert type(bad.error) is kind
        assert str(bad.error)


@pytest.mark.parametrize("n_seqs", [1, 2])
@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"top_k": 40}, {"top_p": 1}, {"mirostat": 2}, {"top_p": 0.5}]
)
def test_logits_that_are_no_numbers_end_an_answer(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], n_seqs: int
) -> None:
    decode = Context.decode

    def poisoned(context: Context, batch: Batch) -> None:
        decode(context, batch)
        with contextlib.suppress(NativeError):  # where no logits were asked for
            logits = context.row(len(batch) - 1).cast("f")
            for token in range(len(logits)):
                logits[token] = float("nan")

    monkeypatch.setattr(Context, "decode", poisoned)
    with (
        edgesppo.load(demo_gguf, n_seqs=n_seqs) as model,
        pytest.raises(NativeError, match="its file may be damaged; verify it"),
    ):
        model.ask("Who are you?", max_tokens=3, **options)
