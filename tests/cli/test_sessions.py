"""Saved chats on the command line: --session, --resume, --snapshots, and their messages."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from edgesppo.cli import main
from edgesppo.cli.session_options import Size
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import GGUF, UNRESOLVED, PinnedModel
from edgesppo.sessions import kv_state
from edgesppo.sessions.folder import Sessions
from edgesppo.sessions.transcript import ModelMark
from edgesppo.system import jsonl
from tests.conftest import DEMO
from tests.support.saved_states import said

if TYPE_CHECKING:
    from pathlib import Path

GREEDY = ["--temperature", "0"]
RESUMED = re.compile(
    r"Resumed 'ada': (\d+) turns?, (\d+) tokens restored, \d+\.\d+ s of prefill saved"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _run(*args: str | Path, stdin: str = "", code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)
    assert result.exit_code == code, result.output
    return result


def _names() -> list[str]:
    return [entry.name for entry in Sessions().entries()]


def test_run_goes_on_with_a_session_its_state_with_it(demo_gguf: Path) -> None:
    first = _run("run", demo_gguf, "My name is Ada.", "--session", "ada", *GREEDY, "--json")
    assert "Resumed" not in first.stderr
    second = _run("run", demo_gguf, "What is my name?", "--session", "ada", "--json")
    found = RESUMED.search(second.stderr)
    assert found
    assert found[1] == "1"
    answer = json.loads(second.stdout)
    assert "Ada" in answer["text"]
    usage = json.loads(first.stdout)["usage"]
    held = usage["prompt_tokens"] + usage["completion_tokens"] - 1
    assert int(found[2]) >= held
    assert answer["usage"]["cached_tokens"] >= held


def test_without_a_session_nothing_away_from_a_terminal_is_saved(
    demo_gguf: Path, home: Path
) -> None:
    _run("run", demo_gguf, "hi", *GREEDY)
    _run("chat", demo_gguf, *GREEDY, stdin="hi\n")
    assert {path.name for path in home.iterdir()} == {"remembered.json"}  # which model it was


def test_a_mistyped_name_of_a_chat_is_answered_with_the_one_meant(demo_gguf: Path) -> None:
    first = _run("run", demo_gguf, "hi", "--session", "rome")
    assert "new chat" not in first.stderr
    typo = _run("chat", demo_gguf, "--session", "romr", stdin="/load rom\n", code=1)
    assert "'romr' is a new chat (did you mean rome?)" in typo.stderr
    assert "there is no saved chat 'rom' (did you mean rome?) in" in typo.stderr
    assert "new chat" not in _run("run", demo_gguf, "hi", "--session", "rome").stderr


def test_a_new_chat_beside_one_that_is_not_saved_is_not_saved_either(
    demo_gguf: Path, home: Path
) -> None:
    said = _run("chat", demo_gguf, *GREEDY, stdin="hi\n/new\nMy name is Ada.\n/undo\n").stderr
    assert "(started a new chat, not saved; " in said
    assert "(removed: My name is Ada.)" in said
    assert {path.name for path in home.iterdir()} == {"remembered.json"}
    _run("chat", demo_gguf, *GREEDY, stdin="/new ada\nhi\n")
    assert _names() == ["ada"]


def test_lines_from_a_pipe_are_kept_in_a_session(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "My name is Ada.\nWhat is 2 plus 3?\n/undo\n"
    with monkeypatch.context() as patch:
        patch.setattr(kv_state, "SLOW_BYTES", 0)
        said = _run("chat", demo_gguf, "--session", "ada", *GREEDY, stdin=lines).stderr
        assert "Saving the KV cache, 0 MB (Ctrl-C: skip)" in said
    resumed = _run("chat", "--resume", stdin="What is my name?\n")
    assert "Resumed 'ada': 1 turn," in resumed.stderr
    assert "Ada" in resumed.stdout
    assert "demo model" not in resumed.stderr  # the session's own model, as none was named
    (entry,) = Sessions().entries()
    assert (entry.name, entry.n_turns, entry.model) == ("ada", 2, demo_gguf.stem)


def test_resume_takes_the_chat_that_was_used_last(demo_gguf: Path) -> None:
    for n, name in enumerate(["ada", "bob"]):
        _run("run", demo_gguf, "hi", "--session", name, *GREEDY)
        path = Sessions().path(name)
        os.utime(path, (n + 1, n + 1))
    assert "Resumed 'bob'" in _run("chat", "--resume").stderr
    _run("run", demo_gguf, "hi", "--session", "ada")
    assert "Resumed 'ada'" in _run("chat", "--resume").stderr


def test_options_are_kept_and_can_be_changed(demo_gguf: Path) -> None:
    _run(
        "run", demo_gguf, "hi", "--session", "ada", "--system", "Be brief.", "--seed", "0", *GREEDY
    )
    _run("run", "hi", "--session", "ada", "--top-k", "5")
    with Sessions().open("ada") as session:
        assert session.transcript is not None
        sampling = session.transcript.sampling
        assert session.transcript.system == "Be brief."
        assert (sampling["seed"], sampling["temperature"], sampling["top_k"]) == (0, 0, 5)


def test_a_bias_is_kept_and_a_senseless_setting_is_left_out_with_a_word(demo_gguf: Path) -> None:
    _run("run", demo_gguf, "hi", "--session", "lb", "--logit-bias", "50=-1", *GREEDY)
    again = _run("run", "hi", "--session", "lb")
    assert "without an invalid setting" not in again.stderr
    path = Sessions().path("lb")
    (head, *_) = jsonl.read_valid(path.read_bytes())
    path.write_bytes(jsonl.encode([{**head.event, "sampling": {"top_p": 7, "seed": 3}}])[0])
    odd = _run("run", "hi", "--session", "lb")
    assert "edgesppo: the chat 'lb' continues without an invalid setting: top_p" in odd.stderr
    assert "goes on without" not in _run("run", "hi", "--session", "lb").stderr
    with Sessions().open("lb") as session:
        assert session.transcript is not None
        assert session.transcript.sampling["seed"] == 3


def test_a_chat_under_another_cache_type_says_why_it_is_prefilled_again(demo_gguf: Path) -> None:
    _run("run", demo_gguf, "hi", "--session", "ada", *GREEDY)
    resumed = _run("run", "hi", "--session", "ada", "--cache-type", "f32")
    assert "will be prefilled again: its KV cache is of another --cache-type," in resumed.stderr


def test_tokens_that_another_model_lacks_are_left_out_with_a_word(demo_gguf: Path) -> None:
    _run("run", demo_gguf, "hi", "--session", "lb", *GREEDY)
    path = Sessions().path("lb")
    (head, *events) = jsonl.read_valid(path.read_bytes())
    saved = {"stop_tokens": [5, 200_000], "logit_bias": [[7, -1.0], [250_000, 2.0]], "seed": 3}
    lines = [{**head.event, "sampling": saved}, *(event.event for event in events)]
    path.write_bytes(jsonl.encode(lines)[0])
    said = _run("run", "hi", "--session", "lb").stderr
    assert "left out of stop_tokens: 200000; this model's vocabulary has" in said
    assert "left out of logit_bias: 250000" in said
    assert "left out of" not in _run("run", "hi", "--session", "lb").stderr
    with Sessions().open("lb") as session:
        assert session.transcript is not None
        assert session.transcript.sampling["stop_tokens"] == [5]
        assert session.transcript.sampling["logit_bias"] == [[7, -1.0]]


def test_snapshots_0_writes_none(demo_gguf: Path) -> None:
    _run("run", demo_gguf, "hi", "--session", "ada", "--snapshots", "0", *GREEDY)
    assert Sessions().entries()[0].n_state_bytes == 0
    resumed = _run("run", "hi", "--session", "ada", "--snapshots", "1MB")
    line = "Resumed 'ada': 1 turn, which will be prefilled again: its KV cache was not saved"
    assert line in resumed.stderr
    assert 0 < Sessions().entries()[0].n_state_bytes < 10**6


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("2GB", 2 * 10**9),
        ("500mb", 5 * 10**8),
        ("1.5GiB", 3 << 29),
        ("4 KiB", 4096),
        ("7k", 7000),
        ("1tb", 10**12),
        ("123", 123),
        ("9B", 9),
    ],
)
def test_a_size_is_a_number_with_a_unit(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 giga", "1e9", "iB", "nan", "2GB2", "1,5GB"])
def test_what_is_no_size_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a size; expected one like 2GB"):
        Size().convert(text, None, None)
    assert "not a size" in _run("chat", "--snapshots", text, code=2).stderr


def test_senseless_requests_are_one_line(demo_gguf: Path) -> None:
    both = _run("chat", demo_gguf, "--session", "a", "--resume", code=2)
    assert "give only one" in both.stderr
    for args, complaint in [
        (("chat", demo_gguf, "--resume"), "no saved chat to resume"),
        (("run", demo_gguf, "hi", "--session", "a/b"), "cannot be the name of a chat"),
    ]:
        result = _run(*args, code=1)
        assert complaint in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_the_second_at_a_chat_is_told_before_a_model_is_loaded(demo_gguf: Path) -> None:
    with Sessions().open("ada"):
        result = _run("run", demo_gguf, "hi", "--session", "ada", code=1)
    assert f"'ada' is open in process {os.getpid()}" in result.stderr
    assert "Resumed" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_was_mended_is_said_and_the_chat_goes_on(demo_gguf: Path) -> None:
    for name in ("torn", "bad"):
        _run("chat", demo_gguf, "--session", name, *GREEDY, stdin="My name is Ada.\nhi\n")
    torn, bad = (Sessions().path(name) for name in ("torn", "bad"))
    torn.write_bytes(torn.read_bytes()[:-7])
    bad.write_bytes(bad.read_bytes().replace(b'"hi"', b'"ho"'))
    for name, notice in (("torn", "had a torn last line"), ("bad", "is damaged after turn 1")):
        result = _run("run", "What is my name?", "--session", name)
        assert f"edgesppo: the chat '{name}' {notice}" in result.stderr
        assert "Ada" in result.stdout
    assert bad.with_name("bad.jsonl.damaged-1").exists()


def test_a_model_that_is_gone_is_named(demo_gguf: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(demo_gguf.read_bytes())
    _run("run", copy, "hi", "--session", "ada", *GREEDY)
    copy.unlink()
    result = _run("run", "hi", "--session", "ada", code=1)
    assert f"{copy}, the model of the chat 'ada', no longer exists" in result.stderr
    assert "Resumed 'ada': 1 turn," in _run("run", demo_gguf, "hi", "--session", "ada").stderr


def test_a_model_that_has_moved_is_found_by_its_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run("import", DEMO, "--name", "toy")
    _run("run", "toy", "hi", "--session", "ada", *GREEDY)
    monkeypatch.setenv("EDGESPPO_HOME", str(home.rename(tmp_path / "moved")))
    assert "Resumed 'ada': 1 turn," in _run("chat", "--resume").stderr


def test_a_model_of_that_name_that_is_not_resolved_yet_is_no_matter(
    demo_gguf: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(demo_gguf.read_bytes())
    _run("run", mine, "hi", "--session", "ada", *GREEDY)
    words = {"repository": "a/b", "revision": UNRESOLVED, "license": "mit", "description": "x"}
    layers.update_entry("mine", lambda _: PinnedModel(name="mine", kind=GGUF, **words))
    assert "Resumed 'ada': 1 turn," in _run("chat", "--resume").stderr
    mine.unlink()
    assert "mine.gguf, the model of the chat 'ada', no" in _run("chat", "--resume", code=1).stderr


def test_the_model_of_a_chat_is_checked_as_an_import_and_a_server_is_named(
    demo_gguf: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.gguf"
    data = demo_gguf.read_bytes()
    mine.write_bytes(data)
    _run("import", mine, "--name", "mine")
    _run("run", "mine", "hi", "--session", "ada", *GREEDY)
    mine.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused = _run("run", "hi", "--session", "ada", code=1).stderr
    assert "mine, is another file of the same size now" in refused
    by = ModelMark("m", "http://127.0.0.1:8080", "0" * 64, 512)
    with Sessions().open("two words") as session:
        session.record(dataclasses.replace(said("Hi"), by=by))
    served = _run("run", "hi", "--session", "two words", code=1).stderr
    assert "edgesppo chat --url http://127.0.0.1:8080 --session 'two words', or " in served


if os.name != "nt":
    from tests.support.pty_terminal import Terminal

    def _chat(*args: str | Path) -> Terminal:
        words = [sys.executable, "-m", "edgesppo", "chat", *map(str, args)]
        return Terminal(words)

    def test_a_chat_on_a_terminal_is_saved_by_itself_and_survives_a_kill(demo_gguf: Path) -> None:
        chat = _chat(demo_gguf, *GREEDY)
        chat.expect(">>>")
        chat.type("My name is Ada.\r")
        chat.expect("t/s")
        chat.process.send_signal(signal.SIGKILL)
        assert chat.close() == -signal.SIGKILL
        (name,) = _names()
        assert re.fullmatch(r"\d{4}-\d\d-\d\d-1", name)
        chat = _chat("--resume")
        chat.expect(f"Resumed '{name}': 1 turn, which will be prefilled again")
        chat.expect(">>>")
        chat.type("What is my name?\r")
        chat.expect("Ada")
        chat.expect("t/s")
        chat.type("\x04")
        chat.expect(f"Saved as {name}")
        assert chat.close() == 0
        chat = _chat("--session", name)
        chat.expect(f"Resumed '{name}': 2 turns, ")
        chat.expect("tokens restored")
        chat.expect(">>>")
        chat.type("\x04")
        assert chat.close() == 0

    def test_an_empty_chat_leaves_nothing_and_says_nothing(demo_gguf: Path, home: Path) -> None:
        chat = _chat(demo_gguf)
        chat.expect(">>>")
        assert any(file.name.endswith(".lock") for file in (home / "sessions").iterdir())
        chat.type("\x04")
        assert chat.close() == 0
        assert b"Saved" not in chat.screen
        assert list((home / "sessions").iterdir()) == []

    def test_where_nothing_can_be_saved_one_can_chat_all_the_same(
        demo_gguf: Path, home: Path
    ) -> None:
        home.write_text("in the way")
        chat = _chat(demo_gguf, *GREEDY)
        chat.expect("this chat will not be saved")
        chat.expect(">>>")
        chat.type("My name is Ada.\r")
        chat.expect("t/s")
        chat.type("\x04")
        assert chat.close() == 0
