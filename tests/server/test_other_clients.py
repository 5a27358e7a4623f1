"""Clients that others wrote over OpenAI's API, and a fuzzer of our own description of it.

Only with EDGESPPO_LONG=1, and each only where it is installed: pip install langchain-openai
llama-index-llms-openai-like llm schemathesis; llama-index's newest wants an openai below 3, so it
goes into an environment of its own.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command_line import CAPITAL
from tests.support.live_server import Live, live
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(not LONG, reason="minutes; EDGESPPO_LONG=1 runs it"),
    pytest.mark.filterwarnings("default"),  # theirs
]
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf) as running:
        yield running


@pytest.fixture
def options(server: Live) -> dict[str, Any]:
    name = server.client.get("/v1/models").json()["data"][0]["id"]
    return {"api_key": "none", "model": name, "temperature": 0, "max_retries": 0}


def test_langchain(server: Live, options: dict[str, Any]) -> None:
    langchain = pytest.importorskip("langchain_openai")
    pydantic = pytest.importorskip("pydantic")
    url = f"{server.url}/v1"
    guess = pydantic.create_model("Guess", city=(pydantic.constr(pattern="^(Paris|Rome)$"), ...))
    model = langchain.ChatOpenAI(base_url=url, **options)
    assert model.invoke(CAPITAL).content == PARIS
    assert "".join(piece.content for piece in model.stream(CAPITAL)) == PARIS
    for method in ("json_schema", "function_calling"):
        found = model.with_structured_output(guess, method=method).invoke(CAPITAL)
        assert found.city in ("Paris", "Rome")
    (call,) = model.bind_tools([guess], tool_choice="any").invoke(CAPITAL).tool_calls
    assert (call["name"], call["args"]["city"] in ("Paris", "Rome")) == ("Guess", True)
    agent = model.bind_tools([guess], response_format=guess, strict=True)  # as agents do
    said = agent.invoke(CAPITAL)
    assert said.tool_calls or said.additional_kwargs["parsed"].city in ("Paris", "Rome")
    assert asyncio.run(model.ainvoke(CAPITAL)).content == PARIS
    newer = langchain.ChatOpenAI(base_url=url, use_responses_api=True, **options)
    assert newer.invoke(CAPITAL).text == PARIS
    assert langchain.OpenAI(base_url=url, **options).invoke("The capital of")


def test_llama_index(server: Live, options: dict[str, Any]) -> None:
    llama_index = pytest.importorskip("llama_index.llms.openai_like")
    model = llama_index.OpenAILike(api_base=f"{server.url}/v1", is_chat_model=True, **options)
    assert model.complete(CAPITAL).text == PARIS
    pieces = list(model.stream_complete(CAPITAL))
    assert "".join(piece.delta or "" for piece in pieces) == PARIS


def tool(name: str) -> str:
    """The path of a program that is installed beside this Python, or anywhere."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or pytest.skip(f"{name} is not installed")


def test_llm(
    server: Live, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, name = tool("llm"), options["model"]
    models = f"- model_id: ours\n  model_name: {name}\n  api_base: {server.url}/v1\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models, encoding="utf-8")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for more in ([], ["--no-stream"]):
        words = [program, "-m", "ours", "-o", "temperature", "0", *more, CAPITAL]
        done = subprocess.run(words, capture_output=True, check=True, text=True)
        assert done.stdout.strip() == PARIS


def test_schemathesis_finds_nothing_in_our_own_description(server: Live, tmp_path: Path) -> None:
    checks = "not_a_server_error,content_type_conformance,status_code_conformance"
    words = [tool("schemathesis"), "run", f"{server.url}/openapi.json", "--max-examples", "30"]
    done = subprocess.run(
        [*words, "--checks", checks, "--suppress-health-check", "all"],
        cwd=tmp_path,  # it keeps what it found there
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
