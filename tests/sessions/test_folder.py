"""The folder of saved chats: names, the latest one, and what is listed of each."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import ChatInUse, ChatNotFound, OutputError, UsageError
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.folder import Sessions
from edgesppo.sessions.kv_snapshot import Binding, Snapshot
from edgesppo.system import jsonl, paths
from tests.support.faulty import Counting, Faulty
from tests.support.saved_states import said

if TYPE_CHECKING:
    from pathlib import Path

BINDING = Binding("model", "library", "settings")


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "deep" / "sessions", Counting())


def write(sessions: Sessions, name: str, *answers: str, used: int = 0) -> Path:
    """Write a chat, last used so many seconds after 1970."""
    with sessions.open(name) as session:
        session.record(said(*answers or ("a",)))
        path = session.path
    if used:
        os.utime(path, (used, used))
    return path


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "empty"),
        (" a", "begins or ends with a space"),
        ("a ", "begins or ends with a space"),
        ("a" * 65, "more than 64 characters"),
        ("\N{GRINNING FACE}" * 64, "200 bytes"),
        ("a/b", "one of the characters"),
        ("a\\b", "one of the characters"),
        ("a:b", "one of the characters"),
        ("what?", "one of the characters"),
        (".hidden", "begins with a dot"),
        ("..", "begins with a dot"),
        ("a.", "ends in a dot"),
        ("a\nb", "control or invisible"),
        ("a\x00b", "control or invisible"),
        ("a\u202eb", "control or invisible"),
        ("a\ud800", "control or invisible"),
        ("con", "Windows"),
        ("NUL.txt", "Windows"),
        ("LPT1", "Windows"),
        ("com³ .x", "Windows"),
    ],
)
def test_what_cannot_be_a_files_name_everywhere_is_refused(
    sessions: Sessions, name: str, complaint: str
) -> None:
    write(sessions, "rome")
    for use in (sessions.open, sessions.resume, sessions.delete):
        with pytest.raises(UsageError, match=complaint) as caught:
            use(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=complaint):
        sessions.rename("rome", name)


@pytest.mark.parametrize("name", ["a", "a" * 64, "Grüße", "日本", "a b", "-x", "a[1]", "cone"])
def test_names_that_a_person_may_want_are_taken(sessions: Sessions, name: str) -> None:
    write(sessions, name)
    assert [entry.name for entry in sessions.entries()] == [name]


def test_one_name_however_its_letters_are_composed(sessions: Sessions) -> None:
    write(sessions, "Gru\u0308n")
    with sessions.resume("Gr\u00fcn") as session:
        assert session.transcript is not None


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_folder_is_its_owners_only(sessions: Sessions) -> None:
    write(sessions, "rome")
    assert stat.S_IMODE(sessions.folder.stat().st_mode) == 0o700
    sessions.folder.chmod(0o755)
    sessions.unnamed().close()
    assert stat.S_IMODE(sessions.folder.stat().st_mode) == 0o700


def test_chats_are_kept_where_nothing_is_emptied_at_will(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sessions().folder == paths.cache_dir() / "sessions"
    monkeypatch.delenv("EDGESPPO_HOME")
    assert Sessions().folder == paths.data_dir() / "sessions"
    assert os.name == "nt" or paths.data_dir() != paths.cache_dir()


def test_the_latest_is_the_one_used_last(sessions: Sessions) -> None:
    for n, name in enumerate(["one", "two", "three"]):
        write(sessions, name, used=1000 + n)
    assert [entry.name for entry in sessions.entries()] == ["three", "two", "one"]
    write(sessions, "one", "a", "b")
    with sessions.latest() as session:
        assert session.name == "one"


def test_without_a_chat_there_is_none_to_resume(sessions: Sessions) -> None:
    with pytest.raises(ChatNotFound, match="no saved chat to resume"):
        sessions.latest()
    for use in (sessions.resume, sessions.delete, lambda name: sessions.rename(name, "x")):
        with pytest.raises(ChatNotFound, match="no saved chat 'rome'"):
            use("rome")
    assert sessions.entries() == []


def test_what_cannot_be_gone_on_with_is_passed_over(sessions: Sessions) -> None:
    write(sessions, "rome", used=1000)
    newer, foreign = sessions.path("newer"), sessions.path("foreign")
    data = jsonl.encode([{"edgesppo": "chat", "version": 2}])[0]
    for path, content, used in ((newer, data, 3000), (foreign, b"dear diary\n", 2000)):
        path.write_bytes(content)
        os.utime(path, (used, used))

    class Denied(Counting):
        def open_to_read(self, path: Path) -> int:
            if path == locked:
                raise PermissionError(13, "Permission denied")
            return super().open_to_read(path)

    locked = write(sessions, "locked", used=4000)
    with Sessions(sessions.folder, Denied()).latest() as session:
        assert session.name == "rome"
        assert "locked.jsonl: cannot be opened: Permission denied" in session.notices[0]
        assert "written by a newer edgesppo (version 2" in session.notices[1]
        assert "'foreign' is damaged from its first line on" in session.notices[2]
    sessions.delete("locked")
    assert newer.read_bytes() == data
    sessions.delete("rome")
    with pytest.raises(ChatNotFound, match=r"no saved chat to resume .*newer edgesppo"):
        sessions.latest()


def test_unnamed_chats_are_called_by_their_day_and_never_alike(sessions: Sessions) -> None:
    with sessions.unnamed() as first, sessions.unnamed() as second:
        for session in (first, second):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d+", session.name)
        assert first.name != second.name
        first.record(said("a"))
        taken = first.name
    with sessions.unnamed() as third:
        assert third.name != taken
    assert [entry.name for entry in sessions.entries()] == [taken]


def test_entries_say_what_there_is(sessions: Sessions) -> None:
    path = write(sessions, "rome", "a", "b", used=1234)
    path.with_name("rome.jsonl.kv").write_bytes(b"12345")
    (entry,) = sessions.entries()
    assert (entry.name, entry.model, entry.n_turns, entry.last_used) == ("rome", "demo", 2, 1234)
    assert (entry.n_bytes, entry.n_state_bytes) == (path.stat().st_size, 5)
    assert entry.problem is None


def test_entries_say_what_is_wrong_and_mend_nothing(sessions: Sessions) -> None:
    spoilt = {
        "torn": lambda data: data[:-5],
        "bad": lambda data: data.replace(b'"b"', b'"x"') + b"\n",
        "foreign": lambda _: b"dear diary\n",
        "empty": lambda _: b"",
    }
    for name, spoil in spoilt.items():
        path = write(sessions, name, "a", "b")
        path.write_bytes(spoil(path.read_bytes()))
    (sessions.folder / "no chat.txt").write_text("x")
    (sessions.folder / "folder.jsonl").mkdir()
    before = {p.name: p.read_bytes() for p in sessions.folder.iterdir() if p.is_file()}
    problems = {entry.name: entry.problem for entry in sessions.entries()}
    assert problems == {
        "torn": "a torn last line after turn 1",
        "bad": "damaged after turn 1",
        "foreign": "not a saved chat, or damaged from its first line on",
    }
    assert before == {p.name: p.read_bytes() for p in sessions.folder.iterdir() if p.is_file()}


def test_rename_and_delete_take_the_state_with_them(sessions: Sessions) -> None:
    path = write(sessions, "rome")
    path.with_name("rome.jsonl.kv").write_bytes(b"state")
    sessions.rename("rome", "paris")
    assert {p.name for p in sessions.folder.iterdir()} == {"paris.jsonl", "paris.jsonl.kv"}
    write(sessions, "rome")
    with pytest.raises(UsageError, match="there is a chat 'rome' already"):
        sessions.rename("paris", "rome")
    with sessions.open("paris"), pytest.raises(ChatInUse, match=f"process {os.getpid()} "):
        sessions.delete("paris")
    sessions.delete("paris")
    assert {p.name for p in sessions.folder.iterdir()} == {"rome.jsonl"}


def test_after_a_fault_while_renaming_a_chat_goes_on_in_its_one_file(sessions: Sessions) -> None:
    class CannotSync(Counting):
        def sync_folder(self, _folder: Path) -> None:
            raise OSError(5, "Input/output error")

    write(sessions, "rome")
    with Sessions(sessions.folder, CannotSync()).open("rome") as session:
        with pytest.raises(OutputError):
            session.rename(sessions.path("paris"))
        session.record(said("a", "b"))
    assert {p.name for p in sessions.folder.iterdir()} == {"paris.jsonl"}


def test_a_chat_can_be_renamed_to_its_name_in_other_letters(sessions: Sessions) -> None:
    write(sessions, "rome")
    with sessions.open("rome") as session:
        locked, other = (sessions.folder / f".{name}.jsonl.lock" for name in ("rome", "Rome"))
        if not other.exists():  # make it as on a disk to which both names are one
            os.link(locked, other)
        session.rename(sessions.path("Rome"))
        with pytest.raises(ChatInUse):
            sessions.open("Rome")
    assert {p.name for p in sessions.folder.glob("*.jsonl")} == {"Rome.jsonl"}


def test_faults_while_renaming_or_deleting_lose_no_chat_silently(sessions: Sessions) -> None:
    for number in range(1, 30):
        for name in ("rome", "paris"):
            if os.path.lexists(sessions.path(name)):
                sessions.delete(name)
        write(sessions, "rome")
        faulty = Sessions(sessions.folder, Faulty(number))
        failed = False
        try:
            faulty.rename("rome", "paris")
        except OutputError:
            failed = True
        names = [entry.name for entry in sessions.entries()]
        assert names == ["paris"] or (failed and names == ["rome"])
        try:
            Sessions(sessions.folder, Faulty(number)).delete(names[0])
        except OutputError:
            continue
        assert sessions.entries() == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot write .*sessions") as caught:
        Sessions(tmp_path / "file" / "sessions").unnamed()
    assert "\n" not in str(caught.value)


def test_states_are_capped_over_all_chats_and_the_oldest_go_first(tmp_path: Path) -> None:
    for n in range(4):
        kv_snapshot.write(tmp_path / f"{n}.kv", BINDING, Snapshot([1], memoryview(bytes(1000))))
        os.utime(tmp_path / f"{n}.kv", (n + 1, n + 1))
    (tmp_path / "layout.kv").write_bytes(b"#:kivy 2.3\n" * 1000)  # of another program
    size = (tmp_path / "0.kv").stat().st_size
    assert kv_snapshot.read(tmp_path / "0.kv", BINDING) is not None  # and so it is the youngest
    kv_snapshot.prune(tmp_path, 2 * size)
    assert {p.name for p in tmp_path.iterdir()} == {"0.kv", "3.kv", "layout.kv"}


def test_what_a_killed_process_left_of_a_state_goes(sessions: Sessions) -> None:
    """Its own chat removes it when opened; a prune in its folder does after an hour."""
    write(sessions, "rome")
    chats = ("rome", "paris", "oslo")
    drafts = [sessions.folder / f".{name}.jsonl.kv.{'0' * 16}" for name in chats]
    for draft in drafts:
        draft.write_bytes(b"half")
    sessions.open("rome").close()
    assert [draft.exists() for draft in drafts] == [False, True, True]
    os.utime(drafts[1], (1, 1))
    kv_snapshot.prune(sessions.folder, 10**9)
    assert [draft.exists() for draft in drafts] == [False, False, True]


def test_a_fault_while_writing_a_state_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.kv"
    old, new = (Snapshot([1, 2], memoryview(bytes([n]) * 3000)) for n in (1, 2))
    for number in range(1, 6):
        kv_snapshot.write(path, BINDING, old)
        with pytest.raises(OSError, match="No space"):
            kv_snapshot.write(path, BINDING, new, Faulty(number, 28))
        held = kv_snapshot.read(path, BINDING)
        assert held is not None
        assert bytes(held.cells) == bytes(old.cells)
        assert [p.name for p in tmp_path.iterdir()] == ["a.kv"]
