"""Snapshots: after a restart a conversation goes on, and what was said is not computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.command_line import CAPITAL
from tests.support.live_server import Live, live

if TYPE_CHECKING:
    from pathlib import Path

# Longer than the demo's sliding window of 64 tokens.
LONG = f"My name is Ada. {'I live in Rome and like to read. ' * 14}{CAPITAL}"


def test_a_conversation_goes_on_although_its_answer_returns_with_other_tokens(
    demo_gguf: Path, tmp_path: Path
) -> None:
    """The ends of lines that end an answer are trimmed; here it has nothing else."""
    options: dict[str, Any] = {"snapshot_folder": tmp_path / "kv", "snapshot_bytes": 1 << 30}
    messages = [{"role": "user", "content": LONG}]

    def ask(server: Live) -> tuple[str, int, int]:
        body = {"messages": messages, "max_tokens": 12, "logit_bias": {"108": 100}}
        found = server.client.post("/v1/chat/completions", json=body).json()
        usage = found["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return found["choices"][0]["message"]["content"], usage["prompt_tokens"], cached

    with live(demo_gguf, **options) as server:
        answer, n_prompt, cached = ask(server)
        assert n_prompt > 2 * 64
        assert cached == 0
        assert answer.strip() == ""
        server.end()
    messages += [{"role": "assistant", "content": "-"}, {"role": "user", "content": "Hi"}]
    with live(demo_gguf, **options) as server:
        assert ask(server)[2] >= n_prompt
