"""Owns the commands that tell or set how answers come about: model, parameters, context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.chat.template import Message
from edgesppo.errors import UsageError
from edgesppo.repl import sampling_settings
from edgesppo.system import validate
from edgesppo.terminal.format import describe, n_tokens, n_turns, speed_line

if TYPE_CHECKING:
    from edgesppo.repl.commands.context import CommandContext

_NONE = ("none", '""', "''")
_MOST_PIECES = 200


def system(desk: CommandContext, rest: str) -> None:
    """/system."""
    chat = desk.talk.chat
    if rest:
        validate.text("the system text", rest)
        chat.system = None if rest in _NONE else rest
    desk.say(f"system: {chat.system}" if chat.system else "(no system text)")


def set_(desk: CommandContext, rest: str) -> None:
    """/set, and /set parameter NAME VALUE as others have it."""
    words = rest.split(None, 2)
    if words[:1] == ["parameter"]:
        words = rest.split(None, 3)[1:]
    if words[:1] == ["system"]:
        system(desk, rest.partition("system")[2].strip())
        return
    if len(words) < 2:
        _tell(desk, words[0] if words else "")
        return
    chat, talk = desk.talk.chat, desk.talk
    if words[0] == "logprobs":
        raise UsageError("a chat shows no log-probabilities; edgesppo run --json does")
    name, word = words[0], " ".join(words[1:])
    chat.params = sampling_settings.changed(chat.params, talk.loaded.defaults, name, word)
    _tell(desk, name)


def _tell(desk: CommandContext, name: str) -> None:
    found = [*sampling_settings.settings(desk.talk.chat.params)]
    if name:
        found = [one for one in found if one.name == name.replace("-", "_")]
        if not found:
            raise sampling_settings.unknown(name)
    desk.say_list([(one.name, one.value, f"{one.meaning} ({one.takes})") for one in found])
    if not name:
        desk.say("/set NAME VALUE sets one; default as VALUE takes it back.")


def show(desk: CommandContext, _rest: str) -> None:
    """/show."""
    talk = desk.talk
    desk.say(describe(talk.loaded))
    desk.say(f"  file     {talk.loaded.model.path}")
    kept = f"{talk.name}, in {talk.session.path}" if talk.session else "not saved; /save NAME does"
    desk.say(f"  chat     {kept}")
    desk.say(f"  turns    {len(talk.chat.messages) // 2:,}")
    desk.say(f"  system   {talk.chat.system or 'none'}")
    defaults = {one.name: one.value for one in sampling_settings.settings(talk.loaded.defaults)}
    own = [
        f"{one.name} {one.value}"
        for one in sampling_settings.settings(talk.chat.params)
        if one.value != defaults[one.name]
    ]
    desk.say(f"  set      {', '.join(own) or 'nothing beyond the defaults'} (/set lists all)")


def stats(desk: CommandContext, _rest: str) -> None:
    """/stats."""
    chat = desk.talk.chat
    desk.say(speed_line(chat.last) if chat.answered else "(no answer yet)")
    if desk.totals.answers:
        desk.say(str(desk.totals))


def tokens(desk: CommandContext, rest: str) -> None:
    """/tokens."""
    talk = desk.talk
    if not rest:
        desk.say(f"{n_tokens(talk.n_tokens())} in this chat; /tokens TEXT shows those of a text")
        return
    ids = talk.loaded.tokenize(rest)
    pieces = [_piece(talk.loaded.model.piece(id_)) for id_ in ids[:_MOST_PIECES]]
    more = " ..." if len(ids) > _MOST_PIECES else ""
    desk.say(f"{n_tokens(len(ids))}: {' '.join(pieces)}{more}")


def _piece(data: bytes) -> str:
    """Between quotes; what is a part of a character only, as bytes."""
    try:
        return repr(data.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(data)


def context(desk: CommandContext, _rest: str) -> None:
    """/context."""
    talk, chat = desk.talk, desk.talk.chat
    n_ctx, used = talk.loaded.engine.n_ctx, talk.n_tokens()
    share = f"{min(1.0, used / n_ctx):.0%}"
    of_system = len(talk.loaded.tokenize(chat.system)) if chat.system else 0
    left = max(0, n_ctx - used)
    turns = len(chat.messages) // 2 - chat.left_out
    desk.say(f"  {n_ctx:>9,}  tokens in the context of {talk.loaded.name}")
    desk.say(f"  {used:>9,}  used, {share}: {n_turns(turns)}, system text {of_system:,}")
    desk.say(f"  {left:>9,}  left")
    held = talk.loaded.engine.count_cached(
        chat.encode([Message("user", "")], left_out=chat.left_out)
    )
    desk.say(f"  {held:>9,}  in the KV cache, so that they need not be read again")
    if used > n_ctx:
        desk.say("  That is more than it holds: the next message leaves out the oldest turns.")
    if chat.left_out:
        desk.say(f"  The oldest {n_turns(chat.left_out)} no longer fit and are left out.")


def model(desk: CommandContext, rest: str) -> None:
    """/model."""
    talk = desk.talk
    if not rest:
        desk.say(describe(talk.loaded))
        return
    found = talk.setup.find(rest)
    try:
        lines = talk.use_model(found, desk.report)
    finally:
        desk.report("", 0.0)
    for line in lines:
        desk.say(line)
