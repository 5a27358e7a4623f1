"""What is remembered from one command to the next: accepted licences, the model used last."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgesppo.store import locate, user_state
from tests.support.pulls import NAME, pulled, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_hub import FakeHub


def test_many_that_remember_at_once_forget_nothing(fresh_home: Path) -> None:
    names = [f"owner/n{number}" for number in range(12)]
    threads = [threading.Thread(target=user_state.accept, args=(name, "0")) for name in names]
    threads += [threading.Thread(target=user_state.set_last, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(user_state.accepted(name, "0") for name in names)
    assert user_state.last() in names
    assert {path.name for path in fresh_home.iterdir()} == {"remembered.json"}


def test_without_a_model_it_is_the_last_one_else_the_real_one_else_the_demo(
    hub: FakeHub, demo_gguf: Path
) -> None:
    result = run("run", "Hi", "--max-tokens", "1")
    assert f"tiny demo model. For the real one: edgesppo pull {NAME} --convert" in result.stderr
    pulled()
    assert locate.default().name == NAME
    run("run", str(demo_gguf), "Hi", "--max-tokens", "1")
    assert user_state.last() == str(demo_gguf)
    result = run("run", "Hi", "--max-tokens", "1")
    assert f"Using {demo_gguf.stem} ({demo_gguf})" in result.stderr
    run("run", "demo", "Hi", "--max-tokens", "1")
    assert user_state.last() == "demo"
    user_state.set_last("a model that is gone")
    assert locate.default().name == NAME
    user_state.path().write_text("[" * 10_000)
    assert locate.default().name == NAME
    assert hub.url
