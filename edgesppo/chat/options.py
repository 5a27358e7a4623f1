"""The options of a chat that is resumed, as a type for editors."""

from __future__ import annotations

from edgesppo.chat.choices import Overflow
from edgesppo.sampling.options import SamplingOptions


class ChatOptions(SamplingOptions, total=False):
    """The options of a chat that is resumed: those of sampling, and the chat's own."""

    system: str | None
    overflow: Overflow
