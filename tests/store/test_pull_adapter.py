"""pull --convert --adapter: a file of its own beside the model's, found by its adapters."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo.errors import ModelNotFound
from edgesppo.lockfile import layers
from edgesppo.store import locate
from edgesppo_convert import convert
from tests.support.adapters import random_factors, write_adapter
from tests.support.pulls import NAME, pull, run, states
from tests.support.same_model import model_of

if TYPE_CHECKING:
    from tests.support.fake_hub import FakeHub

Q = {"model.layers.1.self_attn.q_proj": (64, 64)}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "lora", random_factors(Q, 4))


def made(*words: str) -> Path:
    return Path(json.loads(pull("--convert", *words, "--json").stdout)["path"])


def test_the_merged_file_is_another_than_the_models_own(
    hub: FakeHub, adapter: Path, tmp_path: Path
) -> None:
    merged = made("--adapter", str(adapter))
    assert "-lora-" in merged.name
    with pytest.raises(ModelNotFound):
        locate.find(NAME)  # the model of this name is not here yet
    assert states()[NAME] == "merged"
    assert "only partly downloaded" not in run("doctor").output
    whole = merged.read_bytes()
    merged.write_bytes(bytes(len(whole)))
    assert f"pull {NAME} --convert --adapter DIR --repair" in run("verify", NAME, code=1).stderr
    assert made("--adapter", str(adapter), "--repair") == merged
    assert merged.read_bytes() == whole
    theirs = convert(hub.folder, tmp_path / "theirs.gguf", adapters=[adapter]).output
    assert model_of(merged)[1] == model_of(theirs)[1]
    plain = made()
    assert locate.find(NAME).path == plain
    assert model_of(plain)[1] != model_of(merged)[1]
    assert len(layers.read().models[NAME].builds) == 2
    asked = len(hub.requests)
    assert made("--adapter", str(adapter)) == merged
    assert len(hub.requests) == asked
    assert made("--adapter", f"{adapter}=0.5") != merged
    run("verify", NAME)
    merged.write_bytes(bytes(merged.stat().st_size))
    said = pull("--repair").stderr
    assert "merge its adapters again with --adapter" in " ".join(said.split())
    assert not merged.exists()
    assert plain.exists()


@pytest.mark.usefixtures("hub")
def test_what_it_says_last_is_the_command_for_that_file(adapter: Path) -> None:
    said = pull("--convert", "--adapter", str(adapter)).stderr
    path = said.splitlines()[-2].partition(" is ready: ")[2]
    assert said.splitlines()[-1] == f"Next: edgesppo chat {shlex.quote(path)}"
    assert Path(path).is_file()


def test_what_cannot_be_merged_is_refused_before_the_hub_is_asked(
    hub: FakeHub, adapter: Path, tmp_path: Path
) -> None:
    words = "--adapter", str(adapter)
    assert "add --convert" in pull(*words, code=1).stderr
    said = run("pull", "demo", "--convert", *words, code=1).stderr
    assert f"edgesppo convert demo --adapter {adapter} -o OUT.gguf" in " ".join(said.split())
    pull("--convert", "--adapter", str(tmp_path / "none"), code=1)
    write_adapter(adapter, {"odd": np.ones(1, np.float32)}, use_dora=True)
    assert "DoRA" in pull("--convert", *words, code=1).stderr
    assert hub.requests == []
