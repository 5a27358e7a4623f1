"""From decode to text, a token takes few Python calls, and answers end in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.model import Model
from edgesppo.planning.run_config import DEFAULT_ROW_COSTS
from tests.benchmarks.token_path import typical

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

# The most Python calls per token, without and with drafts.
MOST, MOST_GUESSING = 42, 50


@pytest.mark.one_context
@pytest.mark.parametrize(("costs", "most"), [(None, MOST), (DEFAULT_ROW_COSTS, MOST_GUESSING)])
def test_a_token_runs_through_few_python_calls(
    demo: LoadedModel, costs: tuple[float, ...] | None, most: int
) -> None:
    engine = Engine(demo._interior.engine.model, draft_costs=costs)
    path = typical(engine)
    engine.close()
    names = [name for _, name in path.calls]
    print(f"{len(names)} calls in {len(path.files)} files")
    assert {"advance", "step", "decode", "sample"} <= set(names), "a whole step was counted"
    assert len(names) <= most, names


def test_what_ends_an_answer_is_all_that_llama_cpp_takes_for_an_end(
    demo_gguf: Path, demo_f32: Path
) -> None:
    for path in (demo_gguf, demo_f32):
        model = Model(path, vocabulary_only=True)
        ends = {id_ for id_ in range(model.n_vocab) if model.weights.is_end(id_)}
        model.close()
        assert model.end_tokens == ends | {model.end_of_turn}
        assert len(ends) > 1


def test_a_requests_own_stop_tokens_end_it_too(demo: LoadedModel) -> None:
    engine, prompt = Engine(demo._interior.engine.model), demo.tokenize("Who are you?", chat=True)
    params = SamplingParams(temperature=0, max_tokens=20)
    whole = engine.add(engine.prepare(prompt, params))
    tokens = [event.token for event in engine.stream(whole) if event.token is not None]
    place = next(n for n, token in enumerate(tokens) if n and token not in tokens[:n])
    cut = engine.add(engine.prepare(prompt, params.replace(stop_tokens=(tokens[place],))))
    assert [event.token for event in engine.stream(cut)] == [*tokens[:place], None]
    assert (cut.finish_reason, cut.end_tokens - whole.end_tokens) == ("stop", {tokens[place]})
    assert whole.end_tokens == demo._interior.engine.model.end_tokens
    engine.close()
