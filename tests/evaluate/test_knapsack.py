"""The knapsack is exact: no other choices within the budget lose less."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgesppo.evaluate.knapsack import Choice, choose

CHOICES = st.builds(Choice, st.integers(1, 30).map(lambda n: 4 * n), st.floats(0, 1))
ITEMS = st.lists(st.lists(CHOICES, min_size=1, max_size=4), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(ITEMS, st.integers(0, 500))
def test_it_finds_what_trying_all_finds(items: list[list[Choice]], budget: int) -> None:
    def picked(numbers: tuple[int, ...]) -> list[Choice]:
        return [item[number] for item, number in zip(items, numbers, strict=True)]

    every = itertools.product(*(range(len(item)) for item in items))
    fitting = [n for n in every if sum(choice.size for choice in picked(n)) <= budget]
    found = choose(items, budget)
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert sum(choice.size for choice in picked(tuple(found))) <= budget
    best = min(sum(choice.loss for choice in picked(n)) for n in fitting)
    assert sum(choice.loss for choice in picked(tuple(found))) <= best + 1e-9
