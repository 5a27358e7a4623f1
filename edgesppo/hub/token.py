"""The user's token for the hub, which appears in no message."""

from __future__ import annotations

import re

from edgesppo.errors import UsageError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, 2.1


def user_token() -> str | None:
    """The user's token, from HF_TOKEN or as saved by `hf auth login`; None if there is none."""
    from huggingface_hub import get_token

    try:
        token = get_token()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the token that `hf auth login` saved cannot be read ({type(error).__name__});"
            " log in again, or set HF_TOKEN"
        ) from None
    if token and not _TOKEN.fullmatch(token):
        raise UsageError(
            "the token for the hub (HF_TOKEN, or the one that `hf auth login` saved) contains a"
            " character that is not allowed in a token, perhaps a quotation mark; set it again"
        )
    return token
