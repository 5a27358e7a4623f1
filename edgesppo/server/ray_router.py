"""`ConversationRouter`: sends a conversation to the machine that had its last turn.

Ray Serve asks it for each request; it imports Ray, and only Ray Serve imports it.
"""

from __future__ import annotations

import importlib
from typing import Any

from edgesppo.server.conversations import Conversations

_routers: Any = importlib.import_module("ray.serve.request_router")


class ConversationRouter(_routers.RequestRouter):  # type: ignore[misc]
    """Takes the session's name of a request for the conversation's."""

    # A machine that computes may be slow to say how much it has to do. Ray's tenth of a second
    # would send its conversations elsewhere, to be prefilled anew.
    queue_len_response_deadline_s = 2.0
    max_queue_len_response_deadline_s = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._conversations = Conversations()

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """The replicas to try, those of one list alike: Ray Serve takes the least busy of them."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # before all are tried again
        by_name = {str(replica.replica_id.unique_id): replica for replica in candidate_replicas}
        ranks = self._conversations.ranks(_name(pending_request), [*by_name])
        return [[by_name[machine] for machine in rank] for rank in ranks]

    def on_request_routed(self, pending_request: Any, replica_id: Any, _result: Any) -> None:
        """Remember who has the conversation now."""
        self._conversations.remember(_name(pending_request), str(replica_id.unique_id))


def _name(pending_request: Any) -> str:
    return str(pending_request.metadata.session_id or "")
