"""A hub that gives one answer to everything, and the check that it is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from edgesppo.errors import EdgesppoError
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import Repository
from tests.support.messages import checked_message

REPOSITORY = Repository("owner", "name", "0" * 40)
TOKEN = "hf_aVerySecretToken"


@dataclass
class Answer:
    """The server's response to every path but `/moved`, and the paths that were requested."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"[]"
    asked: list[str] = field(default_factory=list)


def ask() -> list[float]:
    """Request a listing; returns the waits between attempts, in seconds."""
    waits: list[float] = []
    HubClient(waits.append).files(REPOSITORY)
    return waits


def refused(kind: type[EdgesppoError], *words: str) -> None:
    with pytest.raises(EdgesppoError) as caught:
        ask()
    assert TOKEN not in checked_message(caught.value, kind, *words)
