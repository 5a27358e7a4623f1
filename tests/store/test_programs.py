"""`import --scan` finds the models of other programs under their real names, where they lie."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import UsageError
from edgesppo.store.programs import folders, hub_cache, llama_cpp, lm_studio, ollama
from edgesppo.store.programs.scan import choose, scan
from tests.conftest import DEMO
from tests.support import gguf_maker as make
from tests.support.command_line import one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path

LAYER = "application/vnd.ollama.image."
VARIABLES = (
    *("OLLAMA_MODELS", "LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"),
    *("XDG_CACHE_HOME", "LOCALAPPDATA"),
)


@pytest.fixture
def user(tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home folder without any model, on Linux."""
    assert fresh_home.is_dir()
    home = tmp_path / "user"
    home.mkdir()
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setattr("sys.platform", "linux")
    return home


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def model(n: int = 0) -> bytes:
    """A small model's file; a different one for every `n`."""
    return make.model(keys=[make.number(b"general.version_number", n)])


def blob(top: Path, data: bytes) -> dict[str, Any]:
    """Store a layer as Ollama does; returns what a manifest says of it."""
    digest = hashlib.sha256(data).hexdigest()
    write(top / "blobs" / f"sha256-{digest}", data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def manifest(top: Path, name: str, **layers: dict[str, Any]) -> None:
    listed = [{"mediaType": LAYER + kind, **layer} for kind, layer in layers.items()]
    text = json.dumps({"schemaVersion": 2, "config": {"digest": "x"}, "layers": listed})
    write(top / "manifests" / name, text.encode())


def named() -> dict[str, str]:
    """The names of what was found -> the programs."""
    return {found.name: found.local.program for found in scan().models}


def test_ollamas_models_have_the_names_that_ollama_shows(user: Path) -> None:
    top = user / ".ollama" / "models"
    weights = blob(top, model())
    manifest(top, "registry.ollama.ai/library/gemma2/9b", model=weights, license=blob(top, b"L"))
    manifest(top, "hf.co/bartowski/gemma-2-9b-it-GGUF/Q4_K_M", model=blob(top, model(1)))
    manifest(top, "registry.ollama.ai/me/mine/latest", model=blob(top, model(2)))
    manifest(top, "registry.ollama.ai/library/same/latest", model=weights)
    assert named() == dict.fromkeys(
        (
            *("gemma2:9b", "hf.co/bartowski/gemma-2-9b-it-GGUF:Q4_K_M", "me/mine:latest"),
            "same:latest",  # a second name of the first one's file
        ),
        "Ollama",
    )
    assert choose(scan().models, "same").name == "same:latest"


def test_what_ollama_adds_to_a_model_is_told(user: Path) -> None:
    top = user / ".ollama" / "models"
    manifest(
        top,
        "registry.ollama.ai/library/a/1",
        model=blob(top, model(1)),
        system=blob(top, b"Be kind."),
        params=blob(top, b"{}"),
    )
    manifest(
        top, "registry.ollama.ai/library/b/1", model=blob(top, model(2)), adapter=blob(top, b"A")
    )
    first, second = scan().models
    assert first.local.note == "not imported: Ollama's system text and parameters"
    assert second.fault == "it has an adapter, which edgesppo does not apply"
    shown = run("import", "--scan", "a:1")
    assert "Note: not imported: Ollama's system text and parameters" in shown.stderr
    assert "b:1 cannot be run: it has an adapter" in one_line_error(run("import", "--scan", "b:1"))


@pytest.mark.parametrize(
    "layers",
    [
        b"",
        b"\xff",
        b"[]",
        b"{",
        b'{"layers": {}}',
        b'{"layers": [1, null, {"mediaType": 3}]}',
        b"[" * 100_000,
        json.dumps(
            {"layers": [{"mediaType": f"{LAYER}model", "digest": "sha256:../../../x"}]}
        ).encode(),
        json.dumps(
            {"layers": [{"mediaType": f"{LAYER}model", "digest": f"sha256:{'0' * 64}"}]}
        ).encode(),
    ],
)
def test_a_manifest_that_says_nothing_of_use_is_passed_over(user: Path, layers: bytes) -> None:
    top = user / ".ollama" / "models"
    write(top / "manifests" / "registry.ollama.ai" / "library" / "x" / "latest", layers)
    write(user / ".ollama" / "x", model())
    manifest(top, "registry.ollama.ai/library/good/1", model=blob(top, model(1)))
    assert named() == {"good:1": "Ollama"}


def test_lm_studios_models_are_named_by_publisher_and_repository(user: Path) -> None:
    write(user / ".lmstudio" / "models" / "pub" / "repo" / "file-Q4_K_M.gguf", model(1))
    write(user / ".lmstudio" / "models" / "pub" / "repo" / "part.gguf.part", model(2))
    elsewhere = user / "big disk"
    write(elsewhere / "pub2" / "repo2" / "other.gguf", model(3))
    write(
        user / ".lmstudio" / "settings.json",
        json.dumps({"downloadsFolder": str(elsewhere)}).encode(),
    )
    write(user / ".cache" / "lm-studio" / "models" / "pub3" / "repo3" / "old.gguf", model(4))
    assert named() == dict.fromkeys(
        ("pub/repo/file-Q4_K_M", "pub2/repo2/other", "pub3/repo3/old"), "LM Studio"
    )
    moved = user / "moved"
    write(moved / "models" / "p" / "r" / "f.gguf", model(5))
    write(user / ".lmstudio-home-pointer", str(moved).encode())
    assert "p/r/f" in named()


def test_llama_cpps_cache_names_the_repositories(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = user / ".cache" / "llama.cpp"
    name = "owner_repo_name_file_Q4_K_M.gguf"
    write(cache / name, model(1))
    url = "https://huggingface.co/owner/repo_name/resolve/main/file_Q4_K_M.gguf"
    write(cache / f"{name}.json", json.dumps({"etag": "e", "url": url}).encode())
    write(cache / "someone_model-GGUF_m.gguf", model(2))
    write(cache / "manifest=someone=model-GGUF=Q4_K_M.json", b"{}")
    write(cache / "plain.gguf", model(3))
    names = ("owner/repo_name/file_Q4_K_M", "someone/model-GGUF/m", "plain")
    assert named() == dict.fromkeys(names, "llama.cpp")
    snapshot = user / "new" / "models--o--n" / "snapshots" / ("a" * 40)
    write(snapshot / "f.gguf", model(4))
    monkeypatch.setenv("LLAMA_CACHE", str(user / "new"))
    assert named() == {"o/n/f": "llama.cpp"}


def test_the_hubs_cache_has_files_and_checkpoints(user: Path) -> None:
    hub = user / ".cache" / "huggingface" / "hub"
    stored = write(hub / "models--o--n" / "blobs" / ("b" * 64), model(1))
    snapshot = hub / "models--o--n" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "sub").mkdir()
    (snapshot / "sub" / "m.gguf").symlink_to(os.path.relpath(stored, snapshot / "sub"))
    (snapshot / "broken.gguf").symlink_to("../../blobs/absent")
    checkpoint = hub / "models--who--what" / "snapshots" / ("c" * 40)
    shutil.copytree(DEMO, checkpoint)
    write(
        hub / "models--other--bert" / "snapshots" / ("d" * 40) / "config.json",
        b'{"model_type": "bert"}',
    )
    write(hub / "datasets--x--y" / "snapshots" / ("e" * 40) / "m.gguf", model(9))
    assert named() == {"o/n/sub/m": "hub cache", "who/what": "hub cache"}
    shutil.copytree(checkpoint, checkpoint.with_name("f" * 40))
    assert {"who/what@cccccccc", "who/what@ffffffff"} <= named().keys()


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"])
def test_the_folders_that_variables_name_are_taken(
    user: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(user / "set"))
    expected = user / "set" / "hub" if variable == "HF_HOME" else user / "set"
    assert hub_cache.folders() == [expected]
    monkeypatch.setenv("OLLAMA_MODELS", str(user / "o"))
    assert ollama.folders()[0] == user / "o"
    monkeypatch.setenv("XDG_CACHE_HOME", str(user / "c"))
    assert llama_cpp.folders() == [user / "c" / "llama.cpp"]
    assert lm_studio.folders()[0] == user / ".lmstudio" / "models"


def test_what_is_chosen_is_imported_where_it_lies(user: Path, demo_gguf: Path) -> None:
    top = user / ".ollama" / "models"
    weights = blob(top, demo_gguf.read_bytes())
    manifest(top, "registry.ollama.ai/library/gemma2/9b", model=weights)
    write(user / ".lmstudio" / "models" / "p" / "r" / "other.gguf", model(1))
    before = sorted(user.rglob("*"))
    listed = run("import", "--scan")
    assert listed.stdout.splitlines() == [
        "1  Ollama     gemma2:9b  Q4_K_M   2.5 MB",
        "2  LM Studio  p/r/other  F32     66.5 kB",
    ]
    assert "To import one: edgesppo import --scan gemma2:9b; all: --scan --all" in listed.stderr
    found = json.loads(run("import", "--scan", "gemma2:9b", "--json").stdout)
    (entry,) = found["imported"]
    assert (entry["name"], entry["files"][0]["sha256"]) == ("gemma2-9b", weights["digest"][7:])
    assert run("path", "gemma2-9b").stdout.strip().endswith(f"blobs/sha256-{weights['digest'][7:]}")
    assert run("run", "gemma2-9b", "Hi", "--max-tokens", "1").exit_code == 0
    assert "gemma2:9b (Ollama)" in run("list").stdout
    assert sorted(user.rglob("*")) == before
    assert "imported as gemma2-9b" in run("import", "--scan").stdout
    assert run("import", "--scan", "--all").exit_code == 0
    assert "other" in run("list").stdout
    again = run("import", "--scan", "gemma2:9b")
    assert "is imported already, as gemma2-9b" in again.stderr


def test_a_name_that_is_taken_gets_its_owner_before_it(user: Path) -> None:
    for owner, n in (("a", 1), ("b", 2)):
        write(user / ".lmstudio" / "models" / owner / "demo" / "demo.gguf", model(n))
    run("import", "--scan", "--all")
    names = {found.imported_as for found in scan().models}
    assert names == {"a-demo-demo", "b-demo-demo"}


def test_what_cannot_be_run_is_listed_with_the_reason(user: Path) -> None:
    top = user / ".lmstudio" / "models"
    whole = model()
    write(top / "p" / "r" / "cut.gguf", whole[:-100])
    write(top / "p" / "r" / "llama.gguf", whole.replace(b"gemma2", b"llama3", 1))
    tensor = make.info(b"blk.0.attn_q.weight", [256, 2], 31, 0)
    write(top / "p" / "r" / "old.gguf", make.file(infos=[tensor], data=4096))
    listed = run("import", "--scan")
    cut, old = listed.stdout.splitlines()
    assert "cannot be run: truncated GGUF" in cut
    assert "cannot be run: 'blk.0.attn_q.weight' has the type Q4_0_4_4" in old
    assert "Not listed: 1 of other architectures" in listed.stderr
    assert "cannot be run: truncated" in one_line_error(run("import", "--scan", "p/r/cut"))
    assert json.loads(run("import", "--scan", "--all", "--json").stdout)["imported"] == []


def test_a_choice_may_be_a_number_a_name_or_a_path(user: Path) -> None:
    top = user / ".lmstudio" / "models"
    for n, name in enumerate(("Alpha", "beta")):
        write(top / "p" / name / "same.gguf", model(n))
    models = scan().models
    first, second = models
    assert choose(models, "1") is first
    assert choose(models, "p/BETA/same") is second
    assert choose(models, str(second.local.path)) is second
    with pytest.raises(
        UsageError, match="'same' is the name of 2 models; name one of p/Alpha/same"
    ):
        choose(models, "same")
    with pytest.raises(UsageError, match="did you mean p/beta/same"):
        choose(models, "p/betta/same")
    with pytest.raises(UsageError, match="'0' is none of the models"):
        choose(models, "0")


def test_on_a_terminal_it_asks(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in enumerate(("a", "b", "c")):
        write(user / ".lmstudio" / "models" / "p" / "r" / f"{name}.gguf", model(n))
    monkeypatch.setattr("edgesppo.cli.import_scan.has_terminal", lambda _: True)
    assert run("import", "--scan", stdin="\n").exit_code == 0
    assert not [found for found in scan().models if found.imported_as]
    run("import", "--scan", stdin="1, 3\n")
    assert [found.imported_as for found in scan().models] == ["a", None, "c"]
    run("import", "--scan", stdin="all\n")
    assert [found.imported_as for found in scan().models] == ["a", "b", "c"]


def test_nothing_found_and_wrong_usage_are_told(user: Path) -> None:
    assert "Neither Ollama, LM Studio, llama.cpp nor" in run("import", "--scan").stdout
    write(user / ".lmstudio" / "models" / "readme.txt", b"")
    assert "No Gemma-2 model was found in" in run("import", "--scan").stdout
    assert "there are none" in one_line_error(run("import", "--scan", "x"))
    for words in ([], ["a", "b"], ["--all", "a"]):
        assert run("import", *words).exit_code == 2
    error = one_line_error(run("import", "gemma2:9b", "--quiet"))
    assert "list the models of other programs: edgesppo import --scan" in error
    assert "--name is for one model, but 0" in one_line_error(
        run("import", "--scan", "--all", "--name", "x")
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_pipes_loops_and_odd_names_do_no_harm(user: Path) -> None:
    top = user / ".lmstudio" / "models"
    (top / "p").mkdir(parents=True)
    os.mkfifo(top / "p" / "pipe.gguf")
    os.mkfifo(user / ".lmstudio-home-pointer")
    os.mkfifo(user / ".lmstudio" / "settings.json")
    (top / "p" / "loop").symlink_to(top)
    odd = write(top / "p" / "\x1b[2J\u202ered\n.gguf", model())
    listed = run("import", "--scan")
    assert listed.exit_code == 0
    assert all(line.isprintable() for line in listed.stdout.splitlines())
    assert [found.local.path for found in scan().models] == [odd]
    assert run("import", "--scan", "1").exit_code in (0, 1)


def test_a_folder_that_cannot_be_read_is_told(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = user / ".lmstudio" / "models"
    closed.mkdir(parents=True)
    real = os.scandir

    def refuse(path: Any) -> Any:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    shown = run("import", "--scan")
    assert shown.exit_code == 0
    assert f"{closed} cannot be read: Permission denied" in shown.stderr
    (closed_one,) = json.loads(run("import", "--scan", "--json").stdout)["unreadable"]
    assert closed_one == {"path": str(closed), "fault": "Permission denied"}


def test_no_more_than_so_many_files_are_looked_at(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_MOST", 5)
    for n in range(20):
        write(user / "x" / str(n) / "m.gguf", b"")
    assert len(list(folders.files_below(user / "x", 4))) < 20


@pytest.mark.parametrize(
    ("kind", "said"), [("adapter", "a LoRA adapter"), ("imatrix", "an importance matrix")]
)
def test_a_gguf_that_is_no_model_says_what_it_is(
    user: Path, tmp_path: Path, kind: str, said: str
) -> None:
    assert user.is_dir()
    path = tmp_path / "x.gguf"
    typed = make.key(b"general.type", make.STRING, make.string(kind.encode()))
    make.assert_refused(path, make.file([typed, *make.sound_keys()]), f"{said}.*, expected a model")
