"""The words that a chat's arguments and results are chosen from, as types."""

from __future__ import annotations

from typing import Literal

Role = Literal["system", "user", "assistant"]
# What to do when a chat outgrows the context.
Overflow = Literal["trim", "error"]
FinishReason = Literal["stop", "length", "cancelled"]
