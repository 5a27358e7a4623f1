"""Which licences must be accepted before a download, and which the user has accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.hub import license_claims
from edgesppo.hub.repository import endpoint
from edgesppo.store import user_state
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedModel


def is_given(entry: PinnedModel) -> bool:
    """Whether the licence needs no acceptance, or exactly these terms were accepted."""
    repository, terms = str(entry.repository), license_claims.terms_digest(entry)
    return license_claims.is_free(entry) or user_state.accepted(repository, terms)


def give(entry: PinnedModel) -> None:
    """Record that the licence was accepted, for this repository and these terms only."""
    user_state.accept(str(entry.repository), license_claims.terms_digest(entry))


def refusal(entry: PinnedModel) -> UsageError:
    """The error for a licence that is not accepted."""
    where = entry.license_link or f"{endpoint()}/{entry.repository}"
    return UsageError(
        f"the licence {license_claims.title(entry)} of {entry.name} is not accepted, so nothing is"
        f" fetched; read it ({one_line(where)}), then add --accept-license to the same command"
    )
