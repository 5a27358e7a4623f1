"""Commands that show or change the model, the sampling parameters and the system text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgesppo.chat.dialogue import dialogue
from edgesppo.errors import UsageError
from edgesppo.interior import interior
from edgesppo.repl import file_names, sampling_settings
from edgesppo.system import validate
from edgesppo.terminal.format import describe, n_tokens, n_turns, oldest_turns, speed_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.repl.commands.context import CommandContext

_NONE = ("none", '""', "''")
_MOST_PIECES = 200
WITHOUT_SYSTEM = "/system none removes it"
NOT_SAVED = "not saved; save it with /save NAME"


def system(ctx: CommandContext, argument: str) -> None:
    """/system [TEXT]: show, set or remove the system text."""
    chat = ctx.state.chat
    if argument:
        validate.text("the system text", argument)
        chat.system = None if argument in _NONE else argument
    ctx.say(f"system: {chat.system}" if chat.system else "(no system text)")
    if argument and chat.system:
        size, n = ctx.state.size(chat.system)
        if n >= ctx.state.loaded.n_ctx:
            ctx.say(f"{ctx.state.too_long(size)}; {WITHOUT_SYSTEM}")


def set_(ctx: CommandContext, argument: str) -> None:
    """/set [NAME [VALUE]], /set NAME=VALUE ...: show or change parameters, all of them or none.

    Also accepts Ollama's `/set parameter NAME VALUE` and `/set system TEXT`.
    """
    first, _, rest = argument.partition(" ")
    if first == "parameter":
        argument = rest.strip()
    if of_system := re.fullmatch(r"system(?:\s*=|\s|$)(.*)", argument):
        system(ctx, of_system[1].strip())
        return
    chat, state = ctx.state.chat, ctx.state
    assigned = sampling_settings.assignments(argument)
    params = chat.params
    for name, value in assigned:
        if sampling_settings.canonical(name) == "logprobs":
            raise UsageError("the chat cannot show log-probabilities; use edgesppo run --json")
        if value:
            defaults = interior(state.loaded).defaults
            params = sampling_settings.changed(params, defaults, name, value)
    chat.params = params
    _show_parameters(ctx, [name for name, _ in assigned])


def _show_parameters(ctx: CommandContext, names: Sequence[str]) -> None:
    shown = {one.name: one for one in sampling_settings.settings(ctx.state.chat.params)}
    for name in names:
        if sampling_settings.canonical(name) not in shown:
            raise sampling_settings.unknown_parameter(name)
    asked = dict.fromkeys(map(sampling_settings.canonical, names))
    chosen = [shown[name] for name in asked] or shown.values()
    ctx.say_list([(one.name, one.value, f"{one.meaning} ({one.takes})") for one in chosen])
    if not names:
        ctx.say(
            "/set NAME VALUE or NAME=VALUE changes one, NAME=VALUE NAME=VALUE several;"
            " /set NAME default resets it."
        )


def show(ctx: CommandContext, _argument: str) -> None:
    """/show: the model, the chat's file and its settings."""
    state = ctx.state
    ctx.say(describe(state.loaded))
    ctx.say(f"  file     {state.loaded.path}")
    saved = f"{state.name}, in {state.session.path}" if state.session else NOT_SAVED
    ctx.say(f"  chat     {saved}")
    ctx.say(f"  turns    {len(state.chat.messages) // 2:,}")
    ctx.say(f"  system   {state.chat.system or 'none'}")
    shown = sampling_settings.settings(interior(state.loaded).defaults)
    defaults = {one.name: one.value for one in shown}
    own = [
        f"{one.name} {one.value}"
        for one in sampling_settings.settings(state.chat.params)
        if one.value != defaults[one.name]
    ]
    ctx.say(f"  set      {', '.join(own) or 'only defaults'} (/set lists all)")


def stats(ctx: CommandContext, _argument: str) -> None:
    """/stats: tokens and speed of the last answer, and totals."""
    last = ctx.stats.last
    ctx.say("(no answer yet)" if last is None else speed_line(last))
    if last is not None:
        ctx.say(str(ctx.stats))


def tokens(ctx: CommandContext, argument: str) -> None:
    """/tokens [TEXT]: the tokens of a text, or their number in the chat."""
    state = ctx.state
    if not argument:
        ctx.say(
            f"{n_tokens(state.n_tokens())} in this chat; /tokens TEXT shows the tokens of a text"
        )
        return
    ids = state.loaded.tokenize(argument)
    pieces = [_piece(interior(state.loaded).engine.model.piece(id_)) for id_ in ids[:_MOST_PIECES]]
    more = " ..." if len(ids) > _MOST_PIECES else ""
    ctx.say(f"{n_tokens(len(ids))}: {' '.join(pieces)}{more}")


def _piece(data: bytes) -> str:
    """A token in quotes; as bytes if it is only a part of a character."""
    try:
        return repr(data.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(data)


def context(ctx: CommandContext, _argument: str) -> None:
    """/context: what fills the context, and what is free."""
    state, chat = ctx.state, ctx.state.chat
    n_ctx, used = state.loaded.n_ctx, state.n_tokens()
    share = f"{min(1.0, used / n_ctx):.0%}"
    of_system = len(state.loaded.tokenize(chat.system)) if chat.system else 0
    left = max(0, n_ctx - used)
    turns = len(chat.messages) // 2 - chat.left_out
    ctx.say(f"  {n_ctx:>9,}  tokens in the context of {state.loaded.name}")
    ctx.say(f"  {used:>9,}  used ({share}): {n_turns(turns)}, {n_tokens(of_system)} of system text")
    ctx.say(f"  {left:>9,}  free")
    cached = dialogue(chat).n_cached()
    if cached is not None:
        ctx.say(f"  {cached:>9,}  in the KV cache, not to be computed again")
    if used > n_ctx and not turns:
        ctx.say(f"  The system text exceeds the context; {WITHOUT_SYSTEM}.")
    elif used > n_ctx:
        ctx.say("  The chat exceeds the context: the next message leaves out the oldest turns.")
    if chat.left_out:
        ctx.say(f"  The latest prompt left out {oldest_turns(chat.left_out)}.")


def model(ctx: CommandContext, argument: str) -> None:
    """/model [MODEL]: show the model, or continue with another one."""
    state = ctx.state
    if not argument:
        ctx.say(describe(state.loaded))
        return
    source = state.setup.find(file_names.single(argument, "/model"))
    try:
        lines = state.use_model(source, ctx.report)
    finally:
        ctx.report("", 0.0)
    for line in lines:
        ctx.say(line)
