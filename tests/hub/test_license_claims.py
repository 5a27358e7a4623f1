"""Licence claims of a repository are read, shown, compared, and accepted per repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.cli import pull as cli_pull
from edgesppo.hub import license_claims
from edgesppo.lockfile import layers
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub

if TYPE_CHECKING:
    from click.testing import Result

NAME = "sppo-iter3"
OTHER = "0123456789abcdef0123456789abcdef01234567"
APACHE = "                 Apache License\n           Version 2.0, January 2004\n"
MIT = (
    "MIT License\n\nCopyright (c) 2024 Nobody\n\n"
    "Permission is hereby granted, free of charge, to any person obtaining a copy\n"
)


@pytest.fixture
def repository(hub: FakeHub, tmp_path: Path) -> Path:
    """A writable copy of the fake hub's files."""
    hub.folder = shutil.copytree(hub.folder, tmp_path / "files")
    return hub.folder


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, result.output
    assert not set(result.output) & {"\x1b", "\x9b", "\r"}
    return result


def card(folder: Path, header: str, text: str = "") -> None:
    (folder / "README.md").write_text(f"---\n{header}\n---\n{text}\n", encoding="utf-8")


def locked(*words: str) -> str:
    return " ".join(run("lock", NAME, "--update", *words).output.split())


def test_the_claims_of_header_text_and_file_are_read_and_shown(repository: Path) -> None:
    card(
        repository,
        "license: other\nlicense_name: my-terms\nlicense_link: https://x.example/t",
        "- License: MIT",
    )
    (repository / "LICENSE").write_text(APACHE)
    said = locked()
    assert "other (my-terms), https://x.example/t; the card's text says MIT;" in said
    assert "its licence file says apache-2.0: follow the stricter" in said
    entry = layers.read().models[NAME]
    assert (entry.license_name, entry.license_in_file) == ("my-terms", "apache-2.0")
    assert json.loads(run("lock", NAME, "--json").stdout)["license_in_file"] == "apache-2.0"
    (repository / "LICENSE").unlink()
    locked()
    assert layers.read().models[NAME].license_in_file is None


@pytest.mark.parametrize("link", ["LICENSE", "http://x.example/t", "javascript:alert(1)"])
def test_a_link_that_is_no_plain_address_is_not_kept(repository: Path, link: str) -> None:
    card(repository, f"license: other\nlicense_name: my-terms\nlicense_link: {link}", "")
    locked()
    entry = layers.read().models[NAME]
    assert (entry.license_name, entry.license_link) == ("my-terms", None)


def test_the_card_is_held_against_its_hash(hub: FakeHub) -> None:
    hub.faults["README.md"] = ["wrong"]
    assert "arrived with the hash" in run("lock", NAME, code=1).stderr


def test_a_card_that_may_not_be_read_leaves_the_claims_as_they_are_known(hub: FakeHub) -> None:
    hub.faults["README.md"] = ["401"]
    assert "the card's text says Apache-2.0" in locked()


@pytest.mark.parametrize(
    ("header", "text", "file", "is_free"),
    [
        ("license: apache-2.0", "- License: Apache-2.0", APACHE, True),
        ("license: apache-2.0", "License: Apache License 2.0", APACHE, True),
        ("license: mit", "License: MIT License", MIT, True),
        ("license: apache-2.0", "- License: Gemma", APACHE, False),
        ("license: apache-2.0", "- License: Apache-2.0", "My Own Terms\n", False),
        ("license: mit", "- License: MIT", MIT + "But never on Sundays. " * 100, False),
        ("license: other", "- License: MIT", MIT, False),
        ("license: gemma", "- License: MIT", MIT, False),
    ],
)
def test_only_what_every_claim_makes_free_is_not_asked_for(
    repository: Path, header: str, text: str, file: str, is_free: bool
) -> None:
    card(repository, header, text)
    (repository / "LICENSE").write_text(file)
    result = run("pull", NAME, code=0 if is_free else 1)
    assert ("is not accepted" in result.stderr) != is_free


def test_what_is_accepted_is_one_repositorys_claims_and_text(
    repository: Path, hub: FakeHub
) -> None:
    card(repository, "license: other\nlicense_name: terms-a")
    (repository / "LICENSE.txt").write_text("Terms\nBe kind.\n")
    run("pull", NAME, "--accept-license")
    run("rm", NAME, "--yes")
    run("pull", NAME)  # the same
    entry = layers.read().models[NAME]
    remembered = json.loads((Path(layers.write_target()).parent / "remembered.json").read_text())
    assert list(remembered["accepted"]) == [REPOSITORY]
    (repository / "LICENSE.txt").write_text("Terms\nBe kind, and pay.\n")
    hub.branches["main"] = OTHER
    locked()
    assert license_claims.line(layers.read().models[NAME]) == license_claims.line(entry)
    assert "other (terms-a) of sppo-iter3 is not accepted" in run("pull", NAME, code=1).stderr


def test_of_a_gguf_file_the_licences_text_counts_too(repository: Path) -> None:
    (repository / "x.gguf").write_bytes(b"GGUF" * 100)
    (repository / "LICENSE").write_text(APACHE)
    run("lock", f"{REPOSITORY}@{REVISION}", "--name", "x", "--file", "x.gguf")
    entry = layers.read().models["x"]
    assert [file.path for file in entry.files] == ["x.gguf"]
    assert entry.license_in_file == "apache-2.0"
    assert len(entry.license_digest or "") == 40


def test_no_escape_of_a_stranger_reaches_the_terminal(
    repository: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "LICENSE").write_text("\x1b]0;owned\x07 Terms \x9b2J of \x1b[31mred\n")
    said = locked()
    assert "x1b]0;owned" in said
    lock = fresh_home / "models.lock"
    for key, value in (("license", "gemma"), ("license_in_text", "Apache-2.0")):
        assert f'{key} = "{value}"' in lock.read_text()
        spoilt = f'{key} = "\\u001b[31m\\u009b2J{value}\\rGPL"'
        lock.write_text(lock.read_text().replace(f'{key} = "{value}"', spoilt))
    monkeypatch.setattr(cli_pull, "has_terminal", lambda _: True)
    for words, code in (
        (["pull", NAME], 1),
        (["pull", NAME, "--json"], 1),
        (["lock", NAME], 0),
        (["lock", NAME, "--json"], 0),
        (["list"], 0),
        (["list", "--json"], 0),
    ):
        run(*words, code=code)


def test_no_escape_in_a_folders_name_reaches_the_terminal(fresh_home: Path) -> None:
    lock = fresh_home / "models.lock"
    lock.write_text(
        'version = 1\n[[model]]\nname = "m"\nkind = "gguf"\ndescription = "d"\nlicense = "L"\n'
        'location = "/x/\\u001b[31m\\u009b2J"\n'
        f'[[model.file]]\npath = "a.gguf"\nsize = 3\nsha256 = "{"0" * 64}"\n'
    )
    assert "x1b[31m" in run("path", "m", code=1).stderr
    assert "x9b" in run("path", "m", "--json", code=1).stdout
    assert "x1b[31m" in run("doctor", code=1).stdout
    assert "x1b[31m" in run("rm", "m", "--yes").stderr
