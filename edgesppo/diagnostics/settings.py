"""The check of `edgesppo doctor` on how measured models run: with one context or with two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.diagnostics.finding import OK, WARN, Finding
from edgesppo.gguf import gemma2
from edgesppo.store import locate
from edgesppo.tuning import choose
from edgesppo.tuning.choose import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADVICE = "close other programs, or use a smaller context (--n-ctx)"


def contexts() -> Iterator[Finding]:
    """Tell which models compute long prompts in a second context, or have no memory for it."""
    for entry, path in locate.gguf_files():
        summary, options = gemma2.load_summary(path), LoadOptions(force=True)
        tuning, _ = choose.choose_settings(summary, options, measure=False)
        if tuning.plain_from is not None:
            text = f"{entry.name} computes {tuning.plain_from} new tokens or more in a second one"
            yield Finding("contexts", OK, text)
        elif choose.origin(summary, options, tuning) == choose.ONE_CONTEXT:
            text = f"{entry.name} has no memory for a second one, so long prompts take longer"
            yield Finding("contexts", WARN, text, _ADVICE)
