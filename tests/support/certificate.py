"""A certificate for localhost that nobody but a test trusts."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    *("-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
)


def make(folder: Path) -> tuple[Path, Path]:
    """The files of a new certificate and of its private key; needs openssl."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = [*_WORDS, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    return cert, key
