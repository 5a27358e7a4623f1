"""Which machine gets a conversation: the one that had its last turn, as long as it is there."""

from __future__ import annotations

from edgesppo.server.conversations import Conversations

MACHINES = ["a", "b", "c"]


def test_a_conversation_goes_to_the_machine_that_had_it() -> None:
    known = Conversations()
    known.remember("Ada's", "b")
    known.remember("Ada's", "c")
    assert known.ranks("Ada's", MACHINES)[0] == ["c"]
    assert sorted(known.ranks("Ada's", MACHINES)[1]) == ["a", "b"]
    assert [sorted(rank) for rank in known.ranks("Ada's", ["a", "b"])] == [["a", "b"]]
    assert known.ranks("Ada's", ["c"]) == [["c"], []]


def test_a_new_conversation_goes_anywhere_and_always_in_the_same_order() -> None:
    first, second = Conversations(), Conversations()
    firsts = set()
    for n in range(50):
        (rank,) = first.ranks(f"conversation {n}", MACHINES)
        assert sorted(rank) == MACHINES
        assert second.ranks(f"conversation {n}", MACHINES[::-1]) == [rank]
        firsts.add(rank[0])
    assert firsts == {*MACHINES}


def test_what_has_no_name_is_spread_and_not_remembered() -> None:
    known = Conversations()
    known.remember("", "a")
    orders = {tuple(known.ranks("", MACHINES)[0]) for _ in range(50)}
    assert len(orders) > 1


def test_conversations_of_long_ago_are_forgotten() -> None:
    known = Conversations(most=2)
    for name in ("1", "2", "1", "3"):
        known.remember(name, "a")
    assert [len(known.ranks(name, MACHINES)) for name in "123"] == [2, 1, 2]
