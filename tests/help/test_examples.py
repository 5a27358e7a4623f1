"""The examples that ship work as they stand; those of other libraries where these are installed.

The window gets a screen of its own from Xvfb. With EDGESPPO_LONG=1 the notebook is run in a kernel,
too, and a program with a server is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.help.pages import EXAMPLES
from tests.support.command_line import CAPITAL
from tests.support.paths import ROOT
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    import edgesppo

PARIS = "The capital of France is Paris."


def module(name: str) -> ModuleType:
    """An example as a module; registered, as pydantic looks names up there."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def test_every_example_is_tried_here() -> None:
    tried = {"script", "asyncio_service", "tk_window", "notebook", "langchain_adapter"}
    tried |= {"llm_plugin", "desktop_app"}
    assert {path.stem for path in EXAMPLES.iterdir() if path.is_file()} == tried


def test_the_script_sorts_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("We fly to Rome on Monday.")
    files = [str(tmp_path / name) for name in ("one.txt", "two.txt")]
    monkeypatch.setattr(sys, "argv", ["script.py", *files])
    runpy.run_path(str(EXAMPLES / "script.py"), run_name="__main__")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == ["one.txt", "two.txt"]
    assert {line["topic"] for line in lines} <= {"travel", "work", "family", "money", "other"}
    monkeypatch.setattr(sys, "argv", ["script.py", str(tmp_path / "three.txt")])
    with pytest.raises(SystemExit, match=r"script\.py: .*No such file"):
        runpy.run_path(str(EXAMPLES / "script.py"), run_name="__main__")


def test_the_service_answers_several_clients_and_outlives_one(
    demo: edgesppo.LoadedModel,
) -> None:
    service = module("asyncio_service")

    async def ask(port: int, *questions: str) -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = []
        for question in questions:
            writer.write(f"{question}\n".encode())
            answers.append((await reader.readline()).decode().strip())
        writer.close()
        return answers

    async def rude(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"Tell me a story.\n")
        writer.transport.abort()

    async def too_long(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * (1 << 17) + b"\n")
        with contextlib.suppress(ConnectionError):  # closed before all of it was read
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()

    faults: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        server = await service.serve(demo, 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            await rude(port)
            await too_long(port)
            one, two = await asyncio.gather(
                ask(port, "My name is Ada.", "What is my name?"), ask(port, "x" * 5000, CAPITAL)
            )
        assert "Ada" in one[1]
        assert two[0].startswith("error: the prompt has")
        assert two[1]

    asyncio.run(main())
    assert not faults


def cells() -> list[str]:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_cells_of_the_notebook_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for cell in cells():
        exec(cell, names)
    shown = capsys.readouterr().out
    assert shown.startswith(PARIS)
    assert "' Paris'" in shown


@pytest.mark.skipif(not LONG, reason="starts a kernel; EDGESPPO_LONG=1 runs it")
@pytest.mark.filterwarnings("default")  # theirs
def test_the_notebook_runs_in_a_kernel() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs[0]["data"]["text/plain"].startswith("<Model demo")
    streamed = [output["text"] for output in outputs if output["output_type"] == "stream"]
    assert "".join(streamed).startswith(PARIS)


@pytest.mark.filterwarnings("default")  # theirs
def test_the_langchain_adapter(demo: edgesppo.LoadedModel) -> None:
    pytest.importorskip("langchain_core", reason="pip install langchain-core")
    messages = importlib.import_module("langchain_core.messages")
    model = module("langchain_adapter").ChatEdgesppo(loaded=demo, sampling={"temperature": 0})
    answer = model.invoke(CAPITAL)
    assert answer.content == PARIS
    assert answer.usage_metadata["output_tokens"] > 3
    assert answer.response_metadata["finish_reason"] == "stop"
    assert "".join(piece.text for piece in model.stream(CAPITAL)) == PARIS
    talk = [
        messages.SystemMessage("Be brief."),
        messages.HumanMessage("My name is Ada."),
        messages.AIMessage("Nice to meet you, Ada."),
        messages.HumanMessage("What is my name?"),
    ]
    assert "Ada" in model.invoke(talk).content
    assert model.bind(stop=["Paris"]).invoke(CAPITAL).content == "The capital of France is "


@pytest.mark.filterwarnings("default")  # theirs
def test_the_plug_in_of_llm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    llm = pytest.importorskip("llm", reason="pip install llm")
    plugins = importlib.import_module("llm.plugins")
    plugins.load_plugins()
    plug_in = module("llm_plugin")
    plugins.pm.register(plug_in, name="edgesppo")
    try:
        model = llm.get_model("edgesppo/demo")
        response = model.prompt(CAPITAL, temperature=0)
        assert response.text() == PARIS
        assert response.usage().output > 3
        talk = model.conversation()
        chat = plug_in.loaded("demo").chat(system="Be brief.", temperature=0)
        for text, more in (("My name is Ada.", {"system": "Be brief."}), ("What is my name?", {})):
            said = talk.prompt(text, temperature=0, **more)
            assert said.text() == chat.ask(text)
            assert said.usage().input == chat.last.usage.prompt_tokens, "the system text stays"
        schema = {"enum": ["Paris", "Rome"]}
        assert json.loads(model.prompt(CAPITAL, schema=schema).text()) in ("Paris", "Rome")
    finally:
        plugins.pm.unregister(plug_in)
        plug_in.loaded("demo").close()


def test_the_desktop_program_has_a_server_that_ends_with_it() -> None:
    program = module("desktop_app")
    with program.ServerChild("demo") as server:
        server.wait()
        assert server.ask("Hello!")
        server.key = "wrong"
        with pytest.raises(OSError, match="401"):
            server.ask("Hello!")
    assert server.process.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
@pytest.mark.skipif(not LONG, reason="seconds; EDGESPPO_LONG=1 runs it")
def test_a_killed_program_takes_its_server_with_it() -> None:
    text = (
        f"import sys, time; sys.path.insert(0, {str(EXAMPLES)!r}); import desktop_app\n"
        "server = desktop_app.ServerChild('demo'); server.wait()\n"
        "print(server.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + 60
    while is_running(server):
        assert time.monotonic() < end, "the server goes on"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A screen for windows: Xvfb's, else the one that is there."""
    pytest.importorskip("tkinter", reason="apt install python3-tk")
    if (program := shutil.which("Xvfb")) is None:
        if not os.environ.get("DISPLAY"):
            pytest.skip("there is no screen, and no Xvfb: apt install xvfb")
        yield
        return
    read, write = os.pipe()
    command = [program, "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, pass_fds=[write], **quiet) as server:
        os.close(write)
        with os.fdopen(read) as told:
            number = told.readline().strip()
        monkeypatch.setenv("DISPLAY", f":{number}")
        yield
        server.terminate()


def window_session(question: str) -> dict[str, Any]:
    """What was seen of the window, in a process of its own.

    Tk's objects end a process where another thread than theirs collects them.
    """
    command = [sys.executable, "-m", "tests.help.window_session", str(EXAMPLES), question]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.mark.usefixtures("display")
def test_the_window_streams_and_does_not_freeze() -> None:
    """While an answer comes, the window's own clock goes on."""
    seen = window_session(CAPITAL)
    assert f"> {CAPITAL}\nThe capital" in seen["log"]
    assert len(seen["ticks"]) > 10
    assert {"Loading ...", "..."} <= {*seen["ticks"]}
    assert not seen["worker is alive"]


@pytest.mark.usefixtures("display")
def test_a_window_that_is_closed_while_it_loads_is_hidden_and_then_ends() -> None:
    seen = window_session("")
    assert seen["state"] == "withdrawn"
    assert not seen["worker is alive"]
