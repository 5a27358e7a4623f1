"""Owns a chat as a file: its turns as JSON, and its KV state beside it.

The turns are the chat; the state only saves time. Whatever is wrong with the state, it is left
out silently and the prompt is prefilled again; whatever is wrong with the turns is an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from edgesppo import snapshot
from edgesppo.errors import BadChat, OutputError
from edgesppo.prompt import Message

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.chat import Chat
    from edgesppo.engine import Engine
    from edgesppo.snapshot import Binding

VERSION = 1
DEFAULT_CAP = 2_000_000_000


def save(chat: Chat, path: Path, engine: Engine, binding: Binding, *, snapshots: int) -> None:
    """Write the chat to `path`, and its KV state beside it if `snapshots` bytes allow it.

    Both appear only when whole and are readable by their owner only. The oldest states of the
    folder go until all of them take at most `snapshots` bytes.
    """
    turns = [{"role": m.role, "content": m.content, "ids": m.ids} for m in chat.messages]
    head = {"version": VERSION, "model": binding.model, "system": chat.system}
    text = json.dumps({**head, "messages": turns})
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - for its mode
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
    _save_state(chat, path, engine, binding, snapshots)


def _save_state(chat: Chat, path: Path, engine: Engine, binding: Binding, cap: int) -> None:
    held = engine.state(chat.history_ids()) if chat.messages and cap > 0 else None
    if held is None or len(held[1]) > cap:
        return
    with contextlib.suppress(OSError):
        snapshot.write(state_path(path), binding, *held)
        snapshot.prune(path.parent, cap)


def state_path(path: Path) -> Path:
    """Where the KV state of the chat at `path` is."""
    return path.with_name(path.name + snapshot.SUFFIX)


def read(path: Path, binding: Binding) -> tuple[str | None, list[Message]]:
    """The system text and the turns of a saved chat. Raises BadChat, saying what is wrong.

    The tokens that answers were generated as are kept for the same model only: to another they
    mean something else, or nothing.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadChat(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise BadChat(f"{path}: not a saved chat: {error}") from None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        found = data.get("version") if isinstance(data, dict) else None
        raise BadChat(f"{path}: its version is {found!r}, expected {VERSION}")
    system, turns = data.get("system"), data.get("messages")
    if not (system is None or isinstance(system, str)) or not isinstance(turns, list):
        raise BadChat(f"{path}: expected a system text and a list of messages")
    messages = [_message(turn, n, path) for n, turn in enumerate(turns, 1)]
    if data.get("model") != binding.model:
        messages = [Message(m.role, m.content) for m in messages]
    if len(messages) % 2:
        raise BadChat(f"{path}: message {len(messages)} has no answer")
    return system, messages


def _message(turn: Any, n: int, path: Path) -> Message:
    role = "user" if n % 2 else "assistant"
    if (
        not isinstance(turn, dict)
        or turn.get("role") != role
        or not isinstance(turn.get("content"), str)
    ):
        raise BadChat(f"{path}: message {n} is not one of the role {role!r} with a text")
    ids = turn.get("ids")
    whole = isinstance(ids, list) and all(type(id_) is int and id_ >= 0 for id_ in ids)
    return Message(role, turn["content"], tuple(ids) if whole and ids else None)


def restore(path: Path, engine: Engine, binding: Binding) -> bool:
    """Put the KV state of the chat at `path` back; False when there is none that fits."""
    held = snapshot.read(state_path(path), binding)
    return held is not None and engine.restore(*held)
