"""Bytes and seconds formatted for people."""

from __future__ import annotations


def size(n_bytes: float) -> str:
    """Bytes in the largest fitting unit, at least kB: 5.8 GB, 17.5 MB, 0.8 kB."""
    for unit, word in ((1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:,.1f} {word}"
    return f"{n_bytes / 1e3:,.1f} kB"


def megabytes(n_bytes: float, decimals: int = 1) -> str:
    """Bytes in megabytes, so that several sizes compare easily: 5,755.0 MB."""
    return f"{n_bytes / 1e6:,.{decimals}f} MB"


def duration(seconds: float) -> str:
    """Seconds in fitting units: 45 s, 12 min, 3 h 5 min."""
    total = int(seconds)
    if total < 120:
        return f"{total} s"
    if total < 2 * 3600:
        return f"{total // 60} min"
    return f"{total // 3600} h {total % 3600 // 60} min"
