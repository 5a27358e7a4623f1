"""The real server with a model, on a thread of the test's own process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import edgesppo
from edgesppo.server.listen import on_address
from edgesppo.server.serve import build_server, run
from edgesppo.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Serve a model on a free port of 127.0.0.1; gives the address, with a slash at its end."""
    settings = ServerSettings(name=model.stem, access_log=False)
    server = build_server(lambda: edgesppo.load(model), settings)
    listener = on_address("127.0.0.1", 0)
    thread = threading.Thread(target=run, args=(server, listener))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
