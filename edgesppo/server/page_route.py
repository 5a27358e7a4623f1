"""The chat page at `/`: static files of this package, under a policy that allows nothing else.

The addresses of its other files have a version in them, which changes with any of the files. So a
browser keeps them for good, and a second visit asks for the first file only.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
FILES_ROUTE = "/page/{version}/{name}"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"  # no markup out of text
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_ASK_AGAIN = {**HEADERS, "Cache-Control": "no-cache"}
_KEEP = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
_INDEX = "index.html"
# This one runs before anything is drawn, and is no module.
_SCRIPT = "theme.js"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class PageFiles:
    """The files of the page, as they were when they were first asked for."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in sorted(self._folder.iterdir())}

    @cached_property
    def version(self) -> str:
        """What the addresses of the files have in them: other files, another version."""
        whole = hashlib.sha256()
        for name, data in self._files.items():
            whole.update(f"{name} {len(data)}\n".encode() + data)
        return whole.hexdigest()[:16]

    @cached_property
    def index(self) -> bytes:
        """The first file, with the version in its addresses, and with those of all modules.

        So a browser need not read one module to learn of the next.
        """
        text = self._files[_INDEX].decode()
        modules = [name for name in self._files if name.endswith(".js") and name != _SCRIPT]
        links = [f'    <link rel="modulepreload" href="page/{name}">\n' for name in modules]
        text = text.replace("  </head>", "".join(links) + "  </head>")
        return re.sub(r'((?:src|href)="page)/', rf"\1/{self.version}/", text).encode()

    def file(self, version: str, name: str) -> bytes | None:
        """One of the other files; None if there is none of that version and name."""
        return self._files.get(name) if version == self.version and name != _INDEX else None


def media_type(name: str) -> str:
    """The type of a file of the page, by its name."""
    return _TYPES[Path(name).suffix]


def make_router() -> APIRouter:
    """The page at `/` and its other files below `/page/`; nothing if the package has none."""
    page, router = PageFiles(), APIRouter(include_in_schema=False)
    if not (FOLDER / _INDEX).is_file():
        return router

    @router.get("/")
    async def index(request: Request) -> Any:
        headers = {**_ASK_AGAIN, "ETag": f'"{page.version}"'}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(page.index, headers=headers, media_type="text/html")

    @router.get(FILES_ROUTE)
    async def file(version: str, name: str) -> Any:
        data = page.file(version, name)
        if data is None:
            raise HTTPException(404)
        return Response(data, headers=_KEEP, media_type=media_type(name))

    return router
