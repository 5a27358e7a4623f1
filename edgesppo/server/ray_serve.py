"""`app`: a server on each machine of a Ray cluster, behind Ray Serve.

    EDGESPPO_API_KEY=NAME:KEY serve run edgesppo.server.ray_serve:app model=sppo-iter3 machines=3

Each machine has one replica, which loads the model from its own store once its files were held
against its lock. A gateway reads the requests, and names each conversation by its API key and its
first messages. It goes to the replica that had its last turn, where its prefix is in the KV cache,
and to another one if that is full or lost (`ray_router.py`). A replica is full when as many wait as
it computes at once: to wait for more answers than that takes longer than to read the conversation
anew where nobody waits. While all are full, requests wait in the gateway.

Ray is imported only when the application is built.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
from typing import TYPE_CHECKING, Any

from edgesppo.api import load
from edgesppo.errors import UsageError
from edgesppo.planning.run_config import DEFAULT_PARALLEL, MOST_SEQS
from edgesppo.server import api_keys
from edgesppo.server.app import create_app
from edgesppo.server.settings import ServerSettings
from edgesppo.server.worker import FAILED, LOADING
from edgesppo.store import verify
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.types import Message, Receive, Scope, Send

_ONGOING = 2  # requests of a machine, for each answer that it computes at once
_TRIES = 3  # of a request whose machine is lost before its response has begun
_ROUTER = "edgesppo.server.ray_router.ConversationRouter"  # Ray Serve imports it by its name
_POLL_S = 0.05
# What a request is; the rest of a scope belongs to the process that received it.
_SENT = (
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string"),
    *("root_path", "headers", "client", "server"),
)
_HEADS = ("messages", "input", "prompt", "instructions", "system")


class MachineServer:
    """The server of one machine: an ordinary class, which Ray Serve makes a replica of.

    Raises BadModelFile where a file is not what the lock says, and what loading the model raised.
    """

    def __init__(self, model: str, parallel: int, settings: ServerSettings) -> None:
        verify.require_sound(model)
        self._app = create_app(lambda: load(model, n_seqs=parallel), settings)
        self._entered = contextlib.AsyncExitStack()
        self._starting = asyncio.Lock()
        self._is_started = False

    async def start(self) -> None:
        """Load the model, once."""
        async with self._starting:
            if self._is_started:
                return
            await self._entered.enter_async_context(self._app.router.lifespan_context(self._app))
            worker = self._app.state.service.worker
            while worker.status == LOADING:
                await asyncio.sleep(_POLL_S)
            if worker.failure is not None:
                raise worker.failure
            self._is_started = True

    async def check_health(self) -> None:
        """Raise if the worker has failed; Ray Serve then starts the replica again."""
        await self.start()
        worker = self._app.state.service.worker
        if worker.status == FAILED:
            raise worker.failure or RuntimeError("the worker has failed")

    async def answer(self, scope: Scope, body: bytes) -> AsyncIterator[Message]:
        """The messages of the response to a request. Leaving it early ends the answer."""
        await self.start()
        queue: asyncio.Queue[Message | None] = asyncio.Queue()
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> Message:
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            queue.put_nowait(message)

        async def run() -> None:
            try:
                await self._app({**scope, "state": {}, "app": self._app}, receive, send)
            finally:
                queue.put_nowait(None)

        running = asyncio.ensure_future(run())
        try:
            while (message := await queue.get()) is not None:
                yield message
            await running
        finally:
            gone.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])

    async def close(self) -> None:
        """Free the model."""
        await self._entered.aclose()


class Gateway:
    """The ASGI application that hands each request to a machine; `machines` is Ray's handle.

    `lost` is what Ray raises if a machine is lost. Only who has one of the `keys` has conversations
    that are remembered; the machines refuse the others.
    """

    def __init__(
        self,
        machines: Any,
        most_bytes: int,
        keys: Sequence[api_keys.ApiKey] = (),
        lost: tuple[type[Exception], ...] = (),
    ) -> None:
        self._machines = machines
        self._most_bytes = most_bytes
        self._keys = keys
        self._lost = lost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the start and the end of the server."""
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        body = await self._body(receive)
        sent = {key: scope[key] for key in _SENT if key in scope}
        headers = dict(scope["headers"])
        name = conversation(headers, body) if self._is_known(headers) else ""
        handle = self._machines.options(stream=True, session_id=name)
        for left in reversed(range(_TRIES)):
            if await self._answer(handle.answer.remote(sent, body), send, may_fail=left > 0):
                return

    def _is_known(self, headers: Mapping[bytes, bytes]) -> bool:
        names = (b"authorization", b"x-api-key")
        given = api_keys.given(*(headers.get(name, b"").decode("latin-1") for name in names))
        return api_keys.find(self._keys, given) is not None

    async def _answer(self, found: Any, send: Send, *, may_fail: bool) -> bool:
        """Send what a machine answers; False if it was lost before it began, where that may be."""
        has_begun = False
        try:
            async for message in found:
                has_begun = True
                await send(message)
        except self._lost:
            if has_begun or not may_fail:
                raise
            return False
        except BaseException:
            found.cancel()
            raise
        return True

    async def _body(self, receive: Receive) -> bytes:
        """The body; of one that is too large, enough for the machine to refuse it."""
        body, more = bytearray(), True
        while more and len(body) <= self._most_bytes:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)


def conversation(headers: Mapping[bytes, bytes], body: bytes) -> str:
    """A name for what a request goes on with: its key, and how its conversation begins.

    The system text and the first message of the user's, of which the later turns have copies.
    Empty for a request that is no conversation.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    begins: list[Any] = [found[key] for key in _HEADS if key in found]
    for n, value in enumerate(begins):
        if isinstance(value, list):
            is_user = [isinstance(item, dict) and item.get("role") == "user" for item in value]
            begins[n] = value[: is_user.index(True) + 1] if True in is_user else value[:1]
    if not begins:
        return ""
    key = headers.get(b"authorization", b"") + b"\n" + headers.get(b"x-api-key", b"")
    return hashlib.sha256(key + json.dumps(begins).encode()).hexdigest()[:32]


def app(args: dict[str, Any]) -> Any:
    """Ray Serve's application. `args`: model, machines (1), parallel (4), allow_host, allow_origin.

    The API keys are those of EDGESPPO_API_KEY where it is built; only their hashes are sent. Raises
    UsageError without any, and for arguments that are not known.
    """
    serve: Any = importlib.import_module("ray.serve")
    known = ("model", "machines", "parallel", "allow_host", "allow_origin")
    unknown = sorted({*args} - {*known})
    if unknown or "model" not in args:
        fault = f"no argument is called {', '.join(unknown)}" if unknown else "there is no model"
        raise UsageError(f"{fault}; expected model and, if wanted, {', '.join(known[1:])}")
    machines = _whole(args, "machines", 1, 10_000)
    parallel = _whole(args, "parallel", DEFAULT_PARALLEL, MOST_SEQS)
    settings = ServerSettings(
        host="0.0.0.0",
        keys=_keys(),
        allowed_hosts=_names(args.get("allow_host")),
        origins=_names(args.get("allow_origin")),
    )

    config: Any = importlib.import_module("ray.serve.config")
    deployed = serve.deployment(
        MachineServer,
        num_replicas=machines,
        max_replicas_per_node=1,
        max_ongoing_requests=_ONGOING * parallel,
        ray_actor_options={"num_cpus": 1},
        request_router_config=config.RequestRouterConfig(request_router_class=_ROUTER),
    ).bind(args["model"], parallel, settings)
    entrance = serve.deployment(
        serve.ingress()(Ingress),
        name="Gateway",
        max_ongoing_requests=settings.limits.connections,
        ray_actor_options={"num_cpus": 0},
    )
    return entrance.bind(deployed, settings.limits.body_bytes, settings.keys)


class Ingress:
    """What Ray Serve makes the gateway of."""

    def __init__(self, machines: Any, most_bytes: int, keys: Sequence[api_keys.ApiKey]) -> None:
        exceptions: Any = importlib.import_module("ray.exceptions")
        self._gateway = Gateway(machines, most_bytes, keys, (exceptions.RayActorError,))

    def __serve_build_asgi_app__(self) -> Gateway:  # the name that Ray Serve calls
        return self._gateway


def _keys() -> tuple[api_keys.ApiKey, ...]:
    keys = tuple(api_keys.from_environment())
    if not keys:
        raise UsageError(f"a cluster's server needs API keys: set {api_keys.VARIABLE}=NAME:KEY,...")
    return keys


def _whole(args: Mapping[str, Any], name: str, default: int, most: int) -> int:
    """A whole number, which a command line gives as a text."""
    value = args.get(name, default)
    text = isinstance(value, str) and value.isdecimal() and len(value) < 7
    return validate.integer(name, int(value) if text else value, 1, most)


def _names(value: str | None) -> tuple[str, ...]:
    return tuple(name for name in (value or "").split(",") if name)
