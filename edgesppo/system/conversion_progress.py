"""How far a conversion is, and the names of its stages."""

from __future__ import annotations

from dataclasses import dataclass

CHECKING = "checking"  # hashing what an interrupted run has left
CONVERTING = "converting"
HASHING = "hashing"  # the shards of the checkpoint, beyond what is converted now
READING = "reading back"


@dataclass(frozen=True)
class Progress:
    """How far a stage of a conversion is; reported when it begins and after every chunk.

    The stages are, in this order: "checking", if an interrupted run is resumed; "converting", whose
    `done_bytes` begin with what that run had done; "hashing", of what was not read of the
    checkpoint (of one on the hub, after each shard); "reading back". Each counts its own bytes.
    """

    tensor: str  # its name; empty when a stage begins
    done_bytes: int
    total_bytes: int
    stage: str = CONVERTING
