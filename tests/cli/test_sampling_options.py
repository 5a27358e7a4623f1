"""The sampling options of the command line: each exists, is validated, and takes effect."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from edgesppo import SamplingParams
from tests.support.command_line import CAPITAL, run

if TYPE_CHECKING:
    from pathlib import Path

EVERY = """
--temperature 0.9 --top-k 5 --top-p 0.8 --min-p 0.05 --typical-p 0.9 --repeat-penalty 1.1
--presence-penalty 0.1 --frequency-penalty 0.1 --repeat-last-n 32 --dry-multiplier 0.5
--dry-base 1.5 --dry-allowed-length 3 --dry-penalty-last-n 64 --dry-sequence-breakers x
--xtc-probability 0.1 --xtc-threshold 0.2 --mirostat 0 --mirostat-tau 4 --mirostat-eta 0.2
--logit-bias 7=-2.5 --logit-bias 8=1 --samplers temperature,top_k,xtc --stop-tokens 7,8
--seed 0 --max-tokens 9 --stop % --logprobs 1 --json
"""


def test_run_takes_every_sampling_option(demo_gguf: Path) -> None:
    flags = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(SamplingParams)}
    assert flags <= set(EVERY.split())
    first, second = (
        json.loads(run("run", demo_gguf, CAPITAL, *EVERY.split()).stdout) for _ in "ab"
    )
    assert first["text"] == second["text"]
    assert first["logprobs"] == second["logprobs"]


def test_options_arrive_as_what_they_say(demo_gguf: Path) -> None:
    asked = ["run", demo_gguf, CAPITAL, "--temperature", "0", "--json", "--logprobs", "2"]
    plain = json.loads(run(*asked).stdout)
    first = plain["logprobs"][0]
    assert list(first) == ["id", "text", "bytes", "logprob", "top"]
    assert bytes(first["bytes"]).decode() == first["text"] == "The"
    assert [list(other) for other in first["top"]] == [["id", "text", "bytes", "logprob"]] * 2
    assert len(plain["logprobs"]) == plain["usage"]["completion_tokens"]
    banned = json.loads(run(*asked, "--logit-bias", f"{first['id']}=-100").stdout)
    assert banned["logprobs"][0]["id"] == first["top"][1]["id"]
    third = plain["logprobs"][2]["id"]
    stopped = json.loads(run(*asked, "--stop-tokens", f"107, {third}").stdout)
    assert len(stopped["logprobs"]) == 2
    assert stopped["finish_reason"] == "stop"


def test_log_probabilities_are_printed_only_when_asked_for(demo_gguf: Path) -> None:
    assert "logprobs" not in json.loads(run("run", demo_gguf, CAPITAL, "--json").stdout)
    for command in (["run", demo_gguf, CAPITAL], ["chat", demo_gguf]):
        result = run(*command, "--logprobs", "2")
        assert result.exit_code == 2
        assert "--json" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--logit-bias", "7", "logit_bias (--logit-bias) is '7', expected ID=BIAS"),
        ("--logit-bias", "7=", "logit_bias (--logit-bias) is '7=', expected ID=BIAS"),
        ("--logit-bias", "7=nan", "logit_bias (--logit-bias) has nan for token 7, expected"),
        ("--logit-bias", "x=1", "logit_bias (--logit-bias) is 'x=1', expected ID=BIAS"),
        ("--stop-tokens", "7;8", "stop_tokens (--stop-tokens) has '7;8', expected token ids"),
        (
            "--samplers",
            "top_q",
            "samplers has 'top_q' (did you mean top_p?), expected some of: penalties, dry",
        ),
        ("--mirostat", "1", "mirostat is 1, expected 0 or 2"),
        ("--logprobs", "21", "logprobs is 21, expected a whole number from 0 to 20"),
    ],
)
def test_a_senseless_sampling_option_is_a_usage_error(
    demo_gguf: Path, option: str, value: str, message: str
) -> None:
    result = run("run", demo_gguf, "x", option, value)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "1e9"])
def test_a_senseless_sampling_value_is_a_usage_error(demo_gguf: Path, value: str) -> None:
    result = run("run", demo_gguf, "x", "--temperature", value)
    assert result.exit_code == 2
    assert "temperature is" in result.stderr
