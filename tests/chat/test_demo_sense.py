"""The shipped demo, at Q4_K_M and greedy, answers what it is meant to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.dev.train_demo import heldout
from tests.support.demo_questions import DIALOGUES, QUESTIONS, is_right
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    import pytest

    from edgesppo.loaded_model import LoadedModel

RIGHT_OF_60, RIGHT_OF_20_UNSEEN, RIGHT_OF_20_DIALOGUES = 57, 17, 18


def test_no_wording_marked_as_unseen_is_in_the_training_data() -> None:
    assert heldout.check(heldout.QUESTIONS, samples=20_000 if LONG else 1_000) == []


def test_questions_are_answered(demo: LoadedModel, capsys: pytest.CaptureFixture[str]) -> None:
    lines, right, unseen = [], 0, 0
    for question in QUESTIONS:
        answer = demo.ask(question.text, temperature=0)
        good = is_right(question, answer)
        right += good
        unseen += good and question.unseen
        mark = ("+" if good else "-") + ("*" if question.unseen else " ")
        lines.append(f"  {mark} {question.text} -> {answer}")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
        print(
            f"  {right} of {len(QUESTIONS)} right; {unseen} of 20 never so worded in training (*)"
        )
    assert len(QUESTIONS) == 60
    assert sum(question.unseen for question in QUESTIONS) == 20
    assert right >= RIGHT_OF_60
    assert unseen >= RIGHT_OF_20_UNSEEN


def test_dialogues_use_earlier_turns(demo: LoadedModel, capsys: pytest.CaptureFixture[str]) -> None:
    lines, right = [], 0
    for dialogue in DIALOGUES:
        chat = demo.chat(temperature=0)
        answers = [chat.ask(turn) for turn in dialogue.turns]
        good = is_right(dialogue, answers[-1])
        right += good
        lines.append(f"  {'+' if good else '-'} {' / '.join(dialogue.turns)} -> {answers[-1]}")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
        print(f"  {right} of {len(DIALOGUES)} dialogues right")
    assert len(DIALOGUES) == 20
    assert all(2 <= len(dialogue.turns) <= 4 for dialogue in DIALOGUES)
    assert right >= RIGHT_OF_20_DIALOGUES
