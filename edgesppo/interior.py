"""The inside of a loaded model. Private; for the rooms that save, show, serve and measure it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgesppo.engine.engine import Engine
    from edgesppo.sampling.params import SamplingParams
    from edgesppo.sessions.model_identity import ModelIdentity


@dataclass(frozen=True)
class Interior:
    """The parts of a loaded model.

    Attributes:
        engine: What generates its answers: token ids in, token ids out.
        identity: The model as saved chats know it.
        defaults: The sampling parameters of new chats: those of the model's file, if it has any.
        url: The server that has loaded it; None if this process has.
    """

    engine: Engine
    identity: ModelIdentity
    defaults: SamplingParams
    url: str | None = None


class _Model(Protocol):
    _interior: Interior


def interior(model: _Model) -> Interior:
    """What is inside a LoadedModel."""
    return model._interior
