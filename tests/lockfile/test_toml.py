"""models.lock pins the files that ship, and an invalid one is refused with file and entry."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

import edgesppo
from edgesppo.dev import lock_demo
from edgesppo.errors import BadLock
from edgesppo.lockfile import toml
from edgesppo.lockfile.entries import Lock
from edgesppo.lockfile.files import describe_files, shipped_folder

if TYPE_CHECKING:
    from pathlib import Path

FILE = f'[[model.file]]\npath = "a.json"\nsize = 3\nsha256 = "{"0" * 64}"\n'
MODEL = (
    '[[model]]\nname = "m"\nkind = "checkpoint"\nshipped = "x"\nlicense = "L"\ndescription = "d"\n'
)
REMOTE = (
    '[[model]]\nname = "r"\nkind = "checkpoint"\ndescription = "d"\nlicense = "L"\n'
    'repository = "o/n"\nrevision = "unresolved"\n'
)
BUILD = (
    '[[model.build]]\nrecipe = "q4_k_m"\nplatform = "linux-x86_64"\nconverter = "c"\n'
    f'library = "l"\nsize = 3\nsha256 = "{"1" * 64}"\n'
)
ODD_NAMES = {
    "CON": "is the name of a device on Windows",
    "nul.txt": "is the name of a device on Windows",
    "sub/Com1.json": "is the name of a device on Windows",
    "lpt¹": "is the name of a device on Windows",
    "x.part": "ends in .part, which is reserved for downloads in progress",
    "sub/.x.Part": "ends in .part, which is reserved for downloads in progress",
    "a.": "ends in a dot or a space",
    "a /b": "name 'a ' ends in a dot or a space",
    "a?": "has one of the characters",
    "é" * 128: "is longer than a file name may be",
}
GOOD = f"version = 1\n{MODEL}{FILE}"
LOCATIONS = {
    "//host/share": "a network share or a device",
    r"\\host\share": "a network share or a device",
    r"/\host\share": "a network share or a device",
    r"\\.\pipe\x": "a network share or a device",
    r"\\?\C:\x": "a network share or a device",
    "/x/../y": r"no '\.\.' in it",
    r"C:\x\..\y": r"no '\.\.' in it",
    r"\x\.." if os.name != "nt" else "/x/..": r"no '\.\.' in it",
    "C:models": "expected the absolute path of a folder",
}


LINKS = (
    '"http://x.example/t"',
    '"file:///etc/passwd"',
    '"javascript:alert(1)"',
    '"LICENSE"',
    '"https://"',
    '"https://user:word@x.example/"',
    r'"https://x.example/\u001b[2J"',
    r'"https://x.example/\n"',
    '"https://x.example/\u202e"',
    '"https://x.example/a b"',
)


def _located(place: str) -> str:
    return GOOD.replace('shipped = "x"', f"location = '{place}'")


def test_the_demos_entry_has_the_sizes_and_hashes_of_the_shipped_files() -> None:
    entry = toml.read().models["demo"]
    folder = shipped_folder(entry)
    shipped_files = describe_files(folder, [file.path for file in entry.files])
    assert entry.files == shipped_files, "refresh it: python -m edgesppo.dev.lock_demo"
    pinned = {file.path for file in entry.files}
    shipped = {p.name for p in folder.iterdir() if p.suffix in (".json", ".model", ".safetensors")}
    assert pinned == shipped


def test_the_demo_is_at_most_8_megabytes() -> None:
    assert sum(file.size for file in toml.read().models["demo"].files) <= 8_000_000


def test_a_written_lock_reads_back_equal() -> None:
    lock = toml.parse(GOOD.replace('"d"', '"é \\" 🙂 \\\\"'), "test")
    assert toml.parse(toml.render(lock), "test") == lock


def test_locations_oids_and_builds_read_back_equal() -> None:
    oid = FILE.replace("sha256", "oid").replace("0" * 64, "0" * 40).replace("a.json", "b.json")
    folder = "C:/x/y"  # in the form of any system
    located = GOOD.replace('shipped = "x"', f'location = "{folder}"')
    lock = toml.parse(located + oid + BUILD, "test")
    model = lock.models["m"]
    assert [(file.sha256, file.oid) for file in model.files] == [("0" * 64, None), (None, "0" * 40)]
    assert (model.location, model.size, model.builds[0].recipe) == (folder, 6, "q4_k_m")
    assert toml.parse(toml.render(lock), "test") == lock


@pytest.mark.parametrize("text", ["", "# ours\n", "version = 1\n", "version = 1\nmodel = []\n"])
def test_a_lock_may_be_empty(text: str) -> None:
    assert toml.parse(text, "test") == Lock({})


def test_control_characters_are_written_as_toml_requires() -> None:
    lock = toml.parse(GOOD.replace('"d"', r'"\u007f \t"'), "test")
    assert toml.parse(toml.render(lock), "test") == lock


def test_a_model_of_the_hub_is_unresolved_until_it_is_pinned() -> None:
    assert toml.parse(f"version = 1\n{REMOTE}", "test").models["r"].files == ()
    pinned = f"version = 1\n{REMOTE.replace('unresolved', 'a' * 40)}"
    with pytest.raises(edgesppo.BadLock, match=r"at least one \[\[file\]\]"):
        toml.parse(pinned, "test")
    lock = toml.parse(pinned + FILE, "test")
    assert toml.parse(toml.render(lock), "test") == lock


def test_the_shipped_lock_invents_no_revision_and_no_hash() -> None:
    for model in toml.read().models.values():
        if model.shipped is None:
            assert (model.revision, model.base_revision) == ("unresolved", "unresolved")
            assert model.files == ()


def test_the_shipped_lock_is_written_as_render_writes_it() -> None:
    text = toml.path().read_text(encoding="utf-8")
    assert toml.render(toml.read()) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"version = 1\n{REMOTE.replace('unresolved', 'main')}", "a branch cannot be pinned"),
        (f"version = 1\n{REMOTE.replace('o/n', 'n')}", "repository is 'n', expected OWNER/NAME"),
        (f"version = 1\n{REMOTE}{FILE}", "files are listed, but the revision is unresolved"),
        (f'version = 1\n{REMOTE}shipped = "x"\n', "exactly one of shipped, location, repository"),
        (GOOD.replace('shipped = "x"\n', ""), "exactly one of shipped, location, repository"),
        (f'version = 1\n{REMOTE}base_model = "a/b"\n', "base_model and base_revision together"),
        (f"version = 1\n{REMOTE}iteration = true\n", "iteration is True, expected a number"),
        (GOOD[:-20], "not TOML"),
        ("model = []", "version is None, expected 1"),
        (GOOD.replace("version = 1", "version = 2"), "version is 2, expected 1"),
        ("version = 1\nmodel = 1\n", r"at least one \[\[model\]\]"),
        (f"version = 1\n{MODEL}", r"at least one \[\[file\]\]"),
        (f"{GOOD}{MODEL}{FILE}", "the name 'm' occurs twice"),
        (f"branch = 1\n{GOOD}", "unknown key 'branch'"),
        (GOOD.replace('kind = "checkpoint"', 'kind = "zip"'), "kind is 'zip'"),
        (GOOD.replace('name = "m"', "name = 3"), "name is 3, expected a string"),
        (GOOD.replace("size = 3", "size = -3"), "size is -3"),
        (GOOD.replace("size = 3", "size = true"), "size is True"),
        (GOOD.replace("0" * 64, "main"), "sha256 is 'main'"),
        (GOOD.replace("a.json", "../a.json"), "leaves the folder of its model"),
        (GOOD.replace("a.json", "/etc/passwd"), "leaves the folder of its model"),
        (GOOD.replace("a.json", "C:/a.json"), "leaves the folder of its model"),
        (GOOD.replace("a.json", r"\\\\host\\a"), "leaves the folder of its model"),
        (GOOD.replace("a.json", "a//b.json"), "not in its simplest form"),
        (GOOD.replace("a.json", "."), "not in its simplest form"),
        (GOOD.replace("a.json", r"a\nb"), "control or invisible"),
        *((GOOD.replace("a.json", name), why) for name, why in ODD_NAMES.items()),
        (GOOD.replace('"m"', '"nul.x"'), "the name 'nul.x' is the name of a device on Windows"),
        (GOOD.replace('"m"', '"m."'), r"the name 'm\.' ends in a dot"),
        (GOOD.replace('"m"', '"M"') + MODEL + FILE, "the name 'm' occurs twice, also as 'M'"),
        (GOOD + FILE.replace("a.json", "a.json/b"), "'a.json/b' is inside the file 'a.json'"),
        (GOOD.replace("a.json", "\u00e9") + FILE.replace("a.json", "e\u0301"), "occurs twice"),
        (f"version = 1\n{REMOTE.replace('o/n', 'nul.x/n')}", "'nul.x--n' is the name of a device"),
        (GOOD + FILE.replace("a.json", "A.json"), "the path 'A.json' occurs twice"),
        (GOOD.replace("sha256", "oid"), "oid is '0*', expected 40 lower-case hex digits"),
        (GOOD.replace(f'sha256 = "{"0" * 64}"', ""), "sha256 is None, expected 64"),
        (GOOD.replace('"m"', '"../m"'), "name is '../m', expected letters"),
        (
            GOOD.replace("shipped", "location"),
            "location is 'x', expected the absolute path of a folder",
        ),
        *((_located(place), why) for place, why in LOCATIONS.items()),
        (GOOD + BUILD.replace("linux-", "../"), "platform is '../x86_64'"),
        (GOOD + BUILD + BUILD, "the build q4_k_m for linux-x86_64 occurs twice"),
        (
            GOOD.replace("checkpoint", "gguf") + FILE.replace("a.json", "b.gguf"),
            "2 files are listed, expected one for the kind 'gguf'",
        ),
        (f"version = 1\n{REMOTE}iteration = -1\n", "iteration is -1, expected 1 or more"),
        *((f"version = 1\n{REMOTE}license_link = {link}\n", "plain https") for link in LINKS),
        ("\ufeff" + GOOD, "begins with a byte order mark; save it as UTF-8 without one"),
        (GOOD + BUILD.replace("size = 3", ""), "build 1: size is None"),
        (GOOD + BUILD + 'user = "me"\n', "build 1: unknown key 'user'"),
        ("x = " + "[" * 5000, "not TOML"),
    ],
)
def test_an_invalid_lock_is_refused_with_file_and_entry(text: str, complaint: str) -> None:
    with pytest.raises(edgesppo.BadLock, match=complaint) as caught:
        toml.parse(text, "some.lock")
    assert str(caught.value).startswith("some.lock")


@pytest.mark.skipif(os.name == "nt", reason="there are no named pipes in folders there")
def test_a_pipe_as_a_lock_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "models.lock"
    os.mkfifo(pipe)
    with pytest.raises(edgesppo.BadLock, match=r"models\.lock: not a regular file"):
        toml.read(pipe)


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("-h", 0), ("--no", 2), ("x", 2)])
def test_help_and_unknown_arguments_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, code: int
) -> None:
    mine = tmp_path / "models.lock"
    monkeypatch.setattr(toml, "path", lambda: mine)
    with pytest.raises(SystemExit) as left:
        lock_demo.main([word])
    assert left.value.code == code
    assert not mine.exists()


def test_without_arguments_the_demos_entry_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "models.lock"
    expected = toml.path().read_text(encoding="utf-8")
    mine.write_text(re.sub(r"(?m)^size = \d+$", "size = 1", expected), encoding="utf-8")
    monkeypatch.setattr(toml, "path", lambda: mine)
    lock_demo.main([])
    assert toml.read(mine).models["demo"] == toml.parse(expected, "").models["demo"]


@pytest.mark.parametrize(
    "line",
    ["a." * 50_000 + "a = 1", '"a".' * 30_000 + "a = 1", "[" + "a . " * 50_000 + "a]"],
)
def test_a_key_of_many_parts_is_refused_at_once(line: str) -> None:
    text = f"# a.b.c.d.e.f\nversion = 1 # it's\nx = 'a.b.c.d.e.f.g'\n{line}\n"
    with pytest.raises(BadLock, match="mine: the key on line 4 has more than 4 parts"):
        toml.parse(text, "mine")


def test_dots_in_strings_and_long_values_are_bounded_but_fine() -> None:
    text = 'version = 1\ny = """a.b.c.d.e.f \\""" a.b.c.d.e"""\n'
    with pytest.raises(BadLock, match="unknown key 'y'"):
        toml.parse(text, "mine")
    with pytest.raises(BadLock) as caught:
        toml.parse("version = 1\n" + "k" * 1_000_000 + " = 1\n", "mine")
    assert len(str(caught.value)) < 500
    with pytest.raises(BadLock, match="more than 2,097,152 bytes"):
        toml.parse("\n" * 2_100_000, "mine")
