"""Engines that compute prompts in a second context, however short they are.

By default the modules of IN_BOTH run with one context and with two, with EDGESPPO_LONG=1 those of
LONG_IN_BOTH, too. EDGESPPO_TWO_CONTEXTS=1 runs every test with two.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from tests.support.sweeps import LONG

if TYPE_CHECKING:
    import pytest

EVERYWHERE = bool(os.environ.get("EDGESPPO_TWO_CONTEXTS"))
IN_BOTH = ("tests.engine.test_engine", "tests.engine.waiting.test_fairness")
LONG_IN_BOTH = (
    "tests.chat.test_history",
    "tests.chat.test_left_streams",
    "tests.chat.test_long_chat",
    "tests.engine.drafts.test_draft_model",
    "tests.engine.drafts.test_ngram_draft",
    "tests.engine.test_interrupted_step",
    "tests.engine.test_leaks",
    "tests.engine.test_many_threads",
    "tests.llama.test_fork",
    "tests.llama.test_grammar_sampler",
    "tests.sessions.test_persistent_chat",
    "tests.sessions.test_saved_chat",
)
# The least number of tokens that the second context computes.
LEAST = 2


def is_for_both(module: str) -> bool:
    """Whether a test module runs with one context and with two."""
    return not EVERYWHERE and (module in IN_BOTH or (LONG and module in LONG_IN_BOTH))


def force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have engines that are made from now on use a second context; fail if that fails."""
    from edgesppo.engine import long_prompts
    from edgesppo.engine.engine import Engine
    from edgesppo.planning.run_config import RunConfig

    def give_up(_: object, error: Exception) -> None:
        raise AssertionError(f"the second context failed: {error}") from error

    monkeypatch.setattr(long_prompts.LongPrompts, "_give_up", give_up)
    defaults = Engine.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "plain_from", LEAST)
    made = functools.partialmethod(RunConfig.__init__, plain_from=LEAST)
    monkeypatch.setattr(RunConfig, "__init__", made)
