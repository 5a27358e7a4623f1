"""`edgesppo serve`: a server for many clients over one model."""

from __future__ import annotations

import functools
import os
import ssl
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.completion import complete_models
from edgesppo.cli.help_format import Headed, HeadedCommand
from edgesppo.cli.loading import choose_model, gguf_path, open_with_meters
from edgesppo.cli.options import model_options
from edgesppo.cli.output import has_terminal, say
from edgesppo.cli.session_options import Size
from edgesppo.errors import UsageError
from edgesppo.gguf import gemma2
from edgesppo.planning.run_config import MOST_SEQS
from edgesppo.server.api_keys import VARIABLE
from edgesppo.server.settings import Deadlines, Limits, ServerSettings
from edgesppo.system.paths import data_dir
from edgesppo.terminal.output import is_quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.loaded_model import LoadedModel
    from edgesppo.store.locate import Found

_SETTINGS = ServerSettings()
_LIMITS, _TIMES = _SETTINGS.limits, _SETTINGS.deadlines
_server = functools.partial(click.option, cls=Headed, heading="Serving")
_safety = functools.partial(click.option, cls=Headed, heading="Who may use it")
_limit = functools.partial(click.option, cls=Headed, heading="Limits", show_default=True)
_timeout = functools.partial(_limit, type=click.FloatRange(0.1, 1e6))
_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = [
    _server("--host", default=_SETTINGS.host, show_default=True, help="The address to listen on."),
    _server(
        "--port",
        type=click.IntRange(0, 65535),
        default=8080,
        show_default=True,
        help="The port to listen on; 0: any free one.",
    ),
    _server("--unix-socket", type=_FILE, help="Listen on this unix socket instead."),
    _server("--tls-cert", type=_FILE, help="The certificate, with its chain, as PEM: for https."),
    _server("--tls-key", type=_FILE, help="The certificate's private key, as PEM."),
    _server(
        "--parallel",
        type=click.IntRange(1, MOST_SEQS),
        help="Answers that are computed at the same time; they share the context."
        " [default: what is worthwhile on this machine]",
    ),
    _server(
        "--snapshots",
        type=Size(),
        default="0",
        metavar="SIZE",
        help="Keep what the KV cache holds from one run to the next, in at most so much disk space,"
        " such as 2GB. [default: 0, keep nothing]",
    ),
    _server(
        "--until-eof",
        is_flag=True,
        help="End when standard input does, as when the program that started the server is gone.",
    ),
    _server("--access-log/--no-access-log", default=True, help="Log each request. [default: on]"),
    _safety(
        "--api-key-file",
        type=_FILE,
        help="The API keys, one a line: NAME:KEY, then requests=N and tokens=N per minute if"
        f" limited. [env: {VARIABLE}, with commas between]",
    ),
    _server(
        "--alias",
        multiple=True,
        help="Another name that clients may ask for the model by, such as gpt-4o; repeatable.",
    ),
    _safety("--allow-host", multiple=True, help="A name the server may be asked by; repeatable."),
    _safety(
        "--allow-origin",
        multiple=True,
        help="A web page's origin, such as https://example.org, that may use it; repeatable.",
    ),
    _limit(
        "--max-queue",
        type=click.IntRange(0, 10_000),
        default=_SETTINGS.max_queue,
        help="The most waiting answers.",
    ),
    _limit(
        "--max-tokens",
        type=click.IntRange(1, 2**31 - 1),
        default=_LIMITS.max_tokens,
        help="The most tokens of one answer.",
    ),
    _limit(
        "--max-n",
        type=click.IntRange(1, 128),
        default=_LIMITS.n,
        help="The most answers to one request.",
    ),
    _limit(
        "--max-body",
        type=click.IntRange(1024, 1 << 30),
        default=_LIMITS.body_bytes,
        help="The largest body, in bytes.",
    ),
    _timeout("--header-timeout", default=_TIMES.header_s, help="Seconds for a request's headers."),
    _timeout("--body-timeout", default=_TIMES.body_s, help="Seconds for its body."),
    _timeout(
        "--write-timeout", default=_TIMES.write_s, help="Seconds for a reader to take any of it."
    ),
    _timeout("--timeout", default=_TIMES.total_s, help="Seconds for a whole answer."),
    _timeout("--drain-timeout", default=_TIMES.drain_s, help="Seconds for answers when it ends."),
]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the server's own options; the command receives them as one dict, `serving`."""

    @functools.wraps(command)
    def wrapped(model: str | None, loading: dict[str, Any], **serving: Any) -> Any:
        return command(model=model, loading=loading, serving=serving)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


@click.command(name="serve", cls=HeadedCommand)
@click.argument("model", required=False, shell_complete=complete_models)
@model_options
@_options
def serve_command(model: str | None, loading: dict[str, Any], serving: dict[str, Any]) -> None:
    """Serve MODEL to many clients, with the APIs of OpenAI and Ollama, and a chat page.

    MODEL is a name, a GGUF file or a checkpoint folder. The default is the model used last, else
    sppo-iter3 if it is on this machine, else the demo.

    Only programs of this machine can use it, unless --host names another address, which needs API
    keys. Ctrl-C or SIGTERM lets the answers under way end; a second one does not.
    """
    found = choose_model(model)
    settings = _settings(serving)
    from edgesppo.server import listen
    from edgesppo.server.serve import build_server, end_with_input, log_to_stderr, run

    def load() -> LoadedModel:
        n_seqs = serving["parallel"] or _sequences(found, loading)
        return open_with_meters({**loading, "n_seqs": n_seqs}, found)

    tls = _tls(serving)
    server = build_server(load, settings, **tls)
    path = serving["unix_socket"]
    listener = (
        listen.on_address(settings.host, serving["port"])
        if path is None
        else listen.on_unix_socket(path)
    )
    page = "a chat page in a browser; " if path is None else ""
    address = listen.url_of(listener, tls=bool(tls))
    say(f"Serving {found.name} at {address} ({page}Ctrl-C ends it)")
    for line in listen.notes(listener, settings, tls=bool(tls)):
        say(line)
    if serving["until_eof"]:
        end_with_input(server)
    try:
        with log_to_stderr(quiet=is_quiet()):
            run(server, listener)
        if has_terminal(sys.stderr):
            say("\nStopped")  # below the ^C that the terminal shows
    finally:
        listener.close()
        if path is not None:
            path.unlink(missing_ok=True)


def _sequences(found: Found, loading: dict[str, Any]) -> int:
    """How many answers to compute at the same time, where the user does not say."""
    from edgesppo.terminal.progress import tuning_progress
    from edgesppo.tuning.choose import LoadOptions, choose_sequences, choose_settings

    options = LoadOptions(
        **{name: loading[name] for name in ("n_ctx", "n_threads", "gpu", "cache_type", "tune")}
    )
    summary = gemma2.load_summary(gguf_path(found))
    with tuning_progress() as on_tune:
        choose_settings(summary, replace(options, force=True), on_tune)
    return choose_sequences(summary, options)


def _settings(serving: dict[str, Any]) -> ServerSettings:
    """The server's settings. Raises UsageError."""
    _require_extra()
    from edgesppo.server.guard import check_names, is_loopback

    check_names(serving["allow_host"], serving["allow_origin"])
    keys = _keys(serving["api_key_file"])
    host = serving["host"]
    if not keys and serving["unix_socket"] is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} lets other machines use the server, which needs API keys: give "
            f"--api-key-file FILE, or set {VARIABLE}"
        )
    return ServerSettings(
        host=host,
        max_queue=serving["max_queue"],
        keys=keys,
        allowed_hosts=serving["allow_host"],
        origins=serving["allow_origin"],
        aliases=serving["alias"],
        access_log=serving["access_log"],
        snapshot_folder=data_dir() / "server",
        snapshot_bytes=serving["snapshots"],
        limits=Limits(
            body_bytes=serving["max_body"],
            n=serving["max_n"],
            max_tokens=serving["max_tokens"],
        ),
        deadlines=Deadlines(
            header_s=serving["header_timeout"],
            body_s=serving["body_timeout"],
            write_s=serving["write_timeout"],
            total_s=serving["timeout"],
            drain_s=serving["drain_timeout"],
        ),
    )


def _keys(path: Path | None) -> Any:
    from edgesppo.server import api_keys

    if path is not None:
        # systemd gives its credentials to the service alone, whatever their modes say.
        is_credential = path.is_relative_to(os.environ.get("CREDENTIALS_DIRECTORY") or "/dev/null")
        is_open = os.name == "posix" and path.is_file() and path.stat().st_mode & 0o077
        if is_open and not is_credential:
            say(f"warning: other users can read {path}; to change that: chmod 600 {path}")
        return tuple(api_keys.read_file(path))
    return tuple(api_keys.from_environment())


def _tls(serving: dict[str, Any]) -> dict[str, Any]:
    cert, key = serving["tls_cert"], serving["tls_key"]
    if cert is None and key is None:
        return {}
    if cert is None or key is None:
        raise UsageError("--tls-cert and --tls-key belong together; give both")
    for path in (cert, key):
        if not path.is_file():
            raise UsageError(f"there is no file {path}; expected a PEM file")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except OSError as error:  # ssl's own are such
        raise UsageError(
            f"{cert} and {key} are not a certificate and its private key"
            f" ({error.strerror or error}); expected two PEM files"
        ) from None
    return {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}


def _require_extra() -> None:
    """Raise UsageError if the server's libraries are not installed."""
    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError as error:
        raise UsageError(
            f"the server needs {error.name}, which is not installed; install its extra: in the "
            'clone, pip install ".[server]"'
        ) from None
    del fastapi, prometheus_client, uvicorn
