"""Bytes and seconds as people read them."""

from __future__ import annotations


def size(n_bytes: float) -> str:
    """Bytes in the unit that suits them: 5.8 GB, 17.5 MB, 0.8 kB."""
    for unit, word in ((1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:,.1f} {word}"
    return f"{n_bytes / 1e3:,.1f} kB"


def megabytes(n_bytes: float, decimals: int = 1) -> str:
    """Bytes in megabytes, so that several can be compared: 5,755.0 MB."""
    return f"{n_bytes / 1e6:,.{decimals}f} MB"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: 45 s, 12 min, 3 h 5 min."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
