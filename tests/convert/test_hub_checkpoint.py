"""Convert a checkpoint on the hub, shard by shard, from a fake hub that fails in every way."""

from __future__ import annotations

import json
import shutil
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.errors import (
    BadCheckpoint,
    DownloadError,
    EdgesppoError,
    ModelNotFound,
    UsageError,
)
from edgesppo.hub import client as hub_module
from edgesppo_convert import Progress, convert
from edgesppo_convert.gemma2.architecture import EMBEDDING, HEAD
from edgesppo_convert.output import output
from edgesppo_convert.source.checkpoint import INDEX, Checkpoint
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub, cached, serve
from tests.support.messages import checked_message
from tests.support.paths import names
from tests.support.same_model import model_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = Shape(2, 64, 64, 2, 1, 32, 2000, 256, 64)
SOURCE = f"{REPOSITORY}@{REVISION}"
SECOND = "model-00002-of-00003.safetensors"
TOKEN = "hf_aVerySecretToken"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "files", SMALL, shards=3)
    (folder / "README.md").write_text("---\nlicense: gemma\n---\n", encoding="utf-8")
    (folder / "vocab.json").write_text("{}" * 100, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output for the same repository, converted from the Hugging Face cache."""
    cache = tmp_path_factory.mktemp("cache")
    out = cache / "out.gguf"
    convert(cached(folder, cache), out)
    return out.read_bytes()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, in seconds; no test really waits."""
    waited: list[float] = []
    monkeypatch.setattr(hub_module.time, "sleep", waited.append)
    monkeypatch.setattr(hub_module.HubClient.__init__, "__defaults__", (waited.append,))
    return waited


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_HUB_OFFLINE", "EDGESPPO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(output, "RECORD_EVERY", 1)
    with serve(folder) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


def refused(out: Path, kind: type[EdgesppoError], *words: str) -> str:
    with pytest.raises(kind) as caught:
        convert(SOURCE, out)
    message = checked_message(caught.value, kind, *words)
    assert TOKEN not in message
    assert not out.exists()
    return message


def test_the_file_is_the_one_that_a_download_would_have_given(
    hub: FakeHub, out: Path, whole: bytes
) -> None:
    assert convert(SOURCE, out).tensors == 24
    assert out.read_bytes() == whole
    assert names(out) == {out.name}
    assert hub.asked("vocab.json") == []  # not needed


@pytest.mark.usefixtures("hub")
def test_at_most_one_shard_lies_on_the_disk(out: Path) -> None:
    seen: set[str] = set()

    def look(progress: Progress) -> None:
        shards = [name for name in names(out) if "shard" in name]
        assert len(shards) == int(progress.stage == "converting" and progress.tensor != "")
        seen.update(shards)

    convert(SOURCE, out, on_progress=look)
    assert len(seen) == 3


def test_what_is_fetched_is_told(hub: FakeHub, out: Path) -> None:
    told: list[tuple[str, int, int]] = []
    convert(SOURCE, out, on_fetch=lambda *figures: told.append(figures))
    shards = [path for path in hub.folder.iterdir() if path.suffix == ".safetensors"]
    for shard in shards:
        size = shard.stat().st_size
        assert (shard.name, size, size) in told


def test_the_token_goes_to_the_hub_alone(hub: FakeHub, out: Path) -> None:
    convert(SOURCE, out)
    sent = {
        kind: headers.get("Authorization")
        for kind, name, headers in hub.requests
        if kind != "data" or name.endswith(".safetensors")
    }
    assert sent == {"tree": f"Bearer {TOKEN}", "resolve": f"Bearer {TOKEN}", "data": None}
    assert TOKEN.encode() not in out.read_bytes()


@pytest.mark.parametrize(
    "faults",
    [
        ["", "cut"],
        ["", "cut", "cut", "cut"],
        ["cut", "cut"],
        ["", "ignored"],
        ["ignored", "cut", "ignored"],
        ["500", "502", "503", "504"],
        ["", "500", "cut", "429:3"],
    ],
)
def test_a_bad_connection_costs_time_only(
    hub: FakeHub, out: Path, whole: bytes, faults: list[str]
) -> None:
    hub.faults[SECOND] = list(faults)
    convert(SOURCE, out)
    assert out.read_bytes() == whole
    assert hub.faults[SECOND] == []


def test_a_cut_connection_is_resumed_by_range_on_the_same_version(hub: FakeHub, out: Path) -> None:
    hub.faults[SECOND] = ["", "cut"]
    convert(SOURCE, out)
    first, again = hub.asked(SECOND)[-2:]
    size = (hub.folder / SECOND).stat().st_size
    assert first["Range"] == f"bytes=0-{size - 1}"
    assert again["Range"] == f"bytes={size // 2}-{size - 1}"
    assert again["If-Range"].startswith('"')


def test_the_wait_that_the_hub_asks_for_is_kept(
    hub: FakeHub, out: Path, waits: list[float]
) -> None:
    hub.faults["tree"] = ["429:7", "503"]
    convert(SOURCE, out)
    assert waits == [7.0, 2.0]


def test_a_wait_may_be_a_date_and_a_listing_may_be_cut(
    hub: FakeHub, out: Path, waits: list[float]
) -> None:
    hub.faults["tree"] = [f"429:{formatdate(time.time() + 50, usegmt=True)}", "cut"]
    convert(SOURCE, out)
    assert 40 < waits[0] <= 50
    assert waits[1:] == [2.0]


def test_too_long_a_wait_is_left_to_the_person(hub: FakeHub, out: Path) -> None:
    hub.faults["tree"] = ["429:86400"]
    refused(out, DownloadError, "asks to wait 86,400 s")


def test_a_hub_that_stays_away_is_given_up_on(hub: FakeHub, out: Path, waits: list[float]) -> None:
    hub.faults[SECOND] = ["", *["500"] * 99]
    refused(out, DownloadError, SECOND, "status 500, 6 times", "run the same command again")
    assert waits == [1, 2, 4, 8, 16]


def test_a_separate_head_is_compared_over_the_network(
    hub: FakeHub, out: Path, whole: bytes, tmp_path: Path
) -> None:
    hub.folder = shutil.copytree(hub.folder, tmp_path / "tied")
    embedding = add_head(hub.folder)
    assert model_of(convert(SOURCE, out).output) == model_of(write(tmp_path / "whole.gguf", whole))
    out.unlink()
    add_head(hub.folder, embedding[:-1] + b"?")
    refused(out, BadCheckpoint, "lm_head.weight differs from model.embed_tokens.weight")


def add_head(folder: Path, data: bytes = b"") -> bytes:
    """Add a shard with an lm_head to the checkpoint, by default a copy of its embedding."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    with Checkpoint(folder) as checkpoint:
        embedding = checkpoint.tensors[EMBEDDING]
        shape, data = embedding.shape, data or b"".join(checkpoint.stream(embedding))
    name = "model-00004-of-00004.safetensors"
    index["weight_map"][HEAD] = name
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    entry = {"dtype": "BF16", "shape": shape, "data_offsets": [0, len(data)]}
    header = json.dumps({HEAD: entry}).encode()
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + data)
    return data


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_wrong_small_file_is_refused(hub: FakeHub, out: Path) -> None:
    hub.faults["config.json"] = ["wrong", "wrong"]
    refused(out, DownloadError, "config.json", "the hub says")
    assert names(out) == set()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("401", DownloadError, ["hf auth login", "HF_TOKEN"]),
        ("403", DownloadError, ["accept the licence at http://127.0.0.1", REPOSITORY]),
        ("404", ModelNotFound, [REVISION]),
        ("418", DownloadError, ["with status 418"]),
        ("html", DownloadError, ["received a web page instead of"]),
    ],
)
@pytest.mark.parametrize("name", ["tree", "config.json", SECOND])
def test_refusals_say_what_to_do(
    hub: FakeHub, out: Path, name: str, status: str, kind: type[EdgesppoError], words: list[str]
) -> None:
    hub.faults[name] = [status]
    refused(out, kind, *words)
    assert names(out) == set()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("listing", [b"[]", b"{}", b"[{}]", b"no", b'[{"type": "file"}]'])
def test_a_listing_that_makes_no_sense(
    out: Path, listing: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module.HubClient, "_read_all", lambda *_: listing)
    kind = BadCheckpoint if listing == b"[]" else DownloadError
    refused(out, kind, REPOSITORY)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (REPOSITORY, "needs a commit: 40 hex digits"),
        (f"{REPOSITORY}@main", "a commit, but 'main' is not one: 40 hex digits"),
        (f"{REPOSITORY}@{REVISION[:7]}", "is not one: 40 hex digits"),
        (f"{REPOSITORY}@{REVISION.upper()}", "is not one: 40 hex digits"),
    ],
)
def test_only_a_commit_will_do(hub: FakeHub, out: Path, source: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        convert(source, out)
    assert f"{REPOSITORY}@COMMIT" in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "EDGESPPO_OFFLINE"])
def test_offline_nothing_is_asked(
    hub: FakeHub, out: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    refused(out, UsageError, f"{name} is set")
    assert hub.requests == []


def test_the_command_line_tells_what_it_fetches(hub: FakeHub, out: Path) -> None:
    result = CliRunner().invoke(main, ["convert", SOURCE, "-o", str(out), "--keep"])
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert [line for line in lines if SECOND in line] == [f"Fetching {SECOND}: 0.1 MB ..."]
    assert any(line.startswith(f"Converting {SOURCE} to q4_k_m: ") for line in lines)
    assert out.with_name("model.gguf.checkpoint").is_dir()
    assert hub.asked(SECOND)


def test_the_command_line_tells_what_failed_and_when_it_is_tried_again(
    hub: FakeHub, out: Path
) -> None:
    hub.faults["tree"] = ["503", "429:7"]
    hub.faults[SECOND] = ["", "cut"]
    result = CliRunner().invoke(main, ["convert", SOURCE, "-o", str(out)])
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "Trying" in line]
    listing = f"the list of files of {REPOSITORY}"
    assert lines == [
        f"Trying again in 1 s (attempt 2 of 6): status 503: {listing}",
        f"Trying again in 7 s (attempt 3 of 6): status 429: {listing}",
        f"Trying again in 1 s (attempt 2 of 6): the connection ended early: {SECOND} of"
        f" {REPOSITORY}",
    ]


def test_a_hub_that_cannot_be_reached_is_told_in_the_systems_words(
    out: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    with serve(folder) as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_HUB_OFFLINE", "EDGESPPO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(main, ["convert", SOURCE, "-o", str(out)])
    assert result.exit_code == 1
    *told, last = result.stderr.splitlines()
    assert len(told) == 5
    assert all("Connection refused: the list of files" in line for line in told)
    assert "(Connection refused, 6 times); check the connection" in last
