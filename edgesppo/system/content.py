"""Recognise a file that is not what its name says, from its first bytes: what is it really?

Downloads leave them: pointers of Git LFS, web pages, answers of a server, archives.
"""

from __future__ import annotations

import re

HEAD = 512  # bytes at the front of a file that are enough to tell
_POINTER = b"version https://git-lfs.github.com/spec/"
_SIZE = re.compile(rb"\nsize (\d{1,15})\s")
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|\?xml|!--)", re.IGNORECASE)
_ANSWER = re.compile(
    rb'\s*(?:\{\s*"error"|Access to model|Invalid (?:username|credentials)|Entry not found'
    rb"|Repository not found|Not Found\b|Unauthorized\b)",
    re.IGNORECASE,
)
_AGAIN = "download it with: edgesppo pull OWNER/NAME, or copy it from where it is whole"
# How other kinds of files begin, and what they are.
_KINDS = (
    (b"GGUF", "a GGUF file, which is already converted", "use it as it is: edgesppo chat FILE"),
    (b"PK\x03\x04", "a zip archive, perhaps a pickle that torch.save wrote", _AGAIN),
    (b"\x80\x02}", "a pickle, which can run code when it is read", _AGAIN),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first: gzip -d"),
    (b"\x89HDF", "an HDF5 file of TensorFlow", _AGAIN),
)


def mistaken_for(head: bytes) -> str | None:
    """What a file is that begins so, and what to do: "a web page ...; download ..."; else None."""
    if head.startswith(_POINTER):
        size = _SIZE.search(head)
        of = f" to a file of {int(size[1]):,} bytes" if size else ""
        return (
            f"a Git LFS pointer{of}, which git did not fetch; run git lfs install, then git lfs"
            f" pull in its folder, or {_AGAIN}"
        )
    if _PAGE.match(head):
        return (
            "a web page: its address led to a page, such as a login or a licence, and not to the"
            f" file; {_AGAIN}"
        )
    if _ANSWER.match(head):
        answer = head[:60].decode("utf-8", "replace").strip()
        return f"a server's answer {answer!r}, saved in place of the file; {_AGAIN}"
    kind = next((kind for kind in _KINDS if head.startswith(kind[0])), None)
    return None if kind is None else f"{kind[1]}; {kind[2]}"
