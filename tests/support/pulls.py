"""Pulling from the fake hub by the command line, and what is here afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.store import pull as obtain
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub

if TYPE_CHECKING:
    from click.testing import Result

    from edgesppo.lockfile.entries import PinnedModel

NAME = "sppo-iter3"
TOKEN = "hf_aVerySecretToken"
OTHER = "0123456789abcdef0123456789abcdef01234567"
SECOND = "model-00002-of-00003.safetensors"
FOLDER = Path("models") / REPOSITORY.replace("/", "--") / REVISION


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, result.output
    assert TOKEN not in result.output
    return result


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def pull(*words: str, code: int = 0) -> Result:
    return run("pull", NAME, "--accept-license", *words, code=code)


def pinned() -> PinnedModel:
    return obtain.pin(obtain.parse_request(NAME))


def same(home: Path, hub: FakeHub) -> None:
    """Assert that exactly the repository's files are here, except those that can run code."""
    found = {path.name: path.read_bytes() for path in (home / FOLDER).iterdir()}
    expected = {path.name: path.read_bytes() for path in hub.folder.iterdir()}
    assert expected.pop("pytorch_model.bin")
    assert found == expected


def pulled(*words: str, name: str = NAME) -> Path:
    """Pull a model, with its licence accepted; where it is."""
    result = run("pull", name, "--accept-license", "--json", *words)
    return Path(json.loads(result.stdout)["path"])


def states() -> dict[str, str]:
    """What `list` says of every model."""
    rows = json.loads(run("list", "--json").stdout)["models"]
    return {row["name"]: row["state"] for row in rows}
