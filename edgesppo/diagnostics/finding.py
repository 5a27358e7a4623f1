"""What one of `edgesppo doctor`'s checks finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """The result of one check; `advice` says what to do if it is not OK."""

    about: str
    state: str  # OK, WARN or FAIL
    text: str
    advice: str | None = None
