"""Shared fixtures: a temporary home folder, and the demo model, converted and loaded once."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import two_contexts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.llama.model import Model
    from edgesppo.loaded_model import LoadedModel
    from tests.support.fake_hub import FakeHub

# Tests rely on SIGINT and SIGHUP, which the parent process may have set to be ignored, as a shell
# does for background jobs.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

CHECKOUT = Path(__file__).parent.parent
DEMO = CHECKOUT / "edgesppo" / "demo"

if sys.dont_write_bytecode:  # then every process would compile the tests anew, for ten seconds
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(CHECKOUT / ".pytest_cache" / "byte-code")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


gc.disable()  # while thousands of tests are collected, none of which is garbage


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all of them, or every collection takes half a second."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Close the two files that llama_cpp opens when it is imported, and leaves open.

    Python would warn of them as it ends: then it goes by the last filters that it looked up, which
    may be those of a test, where warnings are errors.
    """
    if (library := sys.modules.get("llama_cpp._utils")) is not None:
        library.outnull_file.close()
        library.errnull_file.close()


@pytest.fixture(scope="session", autouse=True)
def edgesppo_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Redirect the cache and data folders, so that no test touches the user's own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPPO_HOME", str(home))
        patch.delenv("EDGESPPO_DEBUG", raising=False)
        yield home


@pytest.fixture(scope="session", autouse=True)
def _models_guess() -> Iterator[None]:
    """Use speculative drafts on small models too, so that every test covers them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgesppo.api.is_small", lambda _: False)
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run some modules with one context, and again with a second one for long prompts."""
    if two_contexts.is_for_both(metafunc.module.__name__):
        metafunc.parametrize("_contexts", (1, 2), indirect=True, ids=("one", "two"))


@pytest.fixture(autouse=True)
def _contexts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Use two contexts where a test's parameter or the environment says so."""
    if getattr(request, "param", 1) == 1 and not two_contexts.EVERYWHERE:
        yield
        return
    if request.node.get_closest_marker("one_context"):
        pytest.skip("it looks at how one context computes a prompt")
    with pytest.MonkeyPatch.context() as patch:
        two_contexts.force(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_else_runs() -> Iterator[None]:
    """What other programs use of this machine must not decide what a test finds."""
    from edgesppo.system import load

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "others", lambda: 0.0)
        patch.setattr(load.LoadMeter, "others", lambda _: 0.0)
        yield


@pytest.fixture(autouse=True)
def _nothing_remembered(edgesppo_home: Path) -> None:
    """Forget the model used last, so that tests do not depend on each other."""
    (edgesppo_home / "remembered.json").unlink(missing_ok=True)


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder for this test, without environment variables that change the lock."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("EDGESPPO_HOME", str(home))
    for name in ("EDGESPPO_LOCK", "EDGESPPO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(scope="session")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a repository with a small checkpoint."""
    from tests.support.checkpoints import Shape, write_checkpoint

    shape = Shape(2, 64, 64, 2, 1, 32, 600, 256, 64)
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "files", shape, shards=3)
    (folder / "README.md").write_text("---\nlicense: gemma\n---\n", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


@pytest.fixture
def hub(fresh_home: Path, hub_files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A local fake hub with a small checkpoint; there is no delay between retries."""
    from edgesppo.hub import client, parallel_download
    from tests.support.fake_hub import serve

    assert fresh_home.is_dir()
    monkeypatch.setenv("HF_TOKEN", "hf_aVerySecretToken")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(parallel_download, "wait", lambda *_: None)
    monkeypatch.setattr(client.HubClient.__init__, "__defaults__", (lambda _: None,))
    with serve(hub_files) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake
        fake.go_on.set()


@pytest.fixture(scope="session")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as Q4_K_M."""
    return _converted(tmp_path_factory, "q4_k_m")


@pytest.fixture(scope="session")
def demo_f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as F32."""
    return _converted(tmp_path_factory, "f32")


def _converted(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    from edgesppo_convert import convert

    output = tmp_path_factory.mktemp("gguf") / f"demo-{kind}.gguf"
    convert(DEMO, output, type=kind)
    return output


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that babbles on, with a context long enough for a person to lose patience."""
    from edgesppo_convert import convert
    from tests.support.checkpoints import SHAPES, resized, write_endless_checkpoint

    folder = tmp_path_factory.mktemp("babbler")
    source = write_endless_checkpoint(
        folder / "babbler", resized(SHAPES["tiny"], layers=4, ffn=512, context=8192)
    )
    return convert(source, folder / "babbler.gguf").output


@pytest.fixture(scope="session")
def demo(demo_gguf: Path) -> Iterator[LoadedModel]:
    """The loaded demo model, shared by all tests, which must not close it."""
    import edgesppo

    with pytest.MonkeyPatch.context() as patch:
        if two_contexts.EVERYWHERE:
            two_contexts.force(patch)
        model = edgesppo.load(demo_gguf)
    with model:
        yield model


@pytest.fixture(scope="module")
def model(demo_gguf: Path) -> Iterator[Model]:
    """The demo's weights and vocabulary, for engines of a test's own."""
    from edgesppo.llama.model import Model

    loaded = Model(demo_gguf)
    yield loaded
    loaded.close()
