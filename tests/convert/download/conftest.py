"""A hub with a tiny checkpoint in two shards, and the file that is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo.hub import client as hub_module
from edgesppo_convert import convert
from edgesppo_convert.output import output
from tests.convert.download.conversion import SOURCE, TINY
from tests.support.checkpoints import write_checkpoint
from tests.support.fake_hub import Direct, FakeHub, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "files", TINY, shards=2)
    for name in ("generation_config.json", "tokenizer_config.json"):  # fewer files make it faster
        (folder / name).unlink()
    return folder


@pytest.fixture(autouse=True)
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_HUB_OFFLINE", "EDGESPPO_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(output, "RECORD_EVERY", 1)
    monkeypatch.setattr(hub_module.HubClient.__init__, "__defaults__", (lambda _: None,))
    with serve(folder) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "model.gguf"
    with serve(folder) as fake, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", fake.url)
        patch.setenv("NO_PROXY", "127.0.0.1")
        convert(SOURCE, out)
    return out.read_bytes()


@pytest.fixture
def direct(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the network by a local opener, since it is not under test here."""
    opener = Direct(folder)
    monkeypatch.setattr(hub_module.urllib.request, "build_opener", lambda *_: opener)
    monkeypatch.setenv("HF_ENDPOINT", opener.hub.url)
