"""The systemd unit and the Dockerfile call what is there: options, versions, our own modules."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import edgesppo.server
from edgesppo.cli.serve import serve_command
from edgesppo.native_build import builds, ziglang
from edgesppo.server.settings import Deadlines
from tests.support.paths import ROOT

DEPLOY = Path(edgesppo.server.__file__).parent / "deploy"
UNIT = (DEPLOY / "edgesppo.service").read_text(encoding="utf-8").replace("\\\n", " ")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, pattern
    return match[1]


def options(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def test_both_give_serve_only_options_that_it_has() -> None:
    known = {name for option in serve_command.params for name in option.opts}
    _, _, after = found("^ExecStart=(.*)$", UNIT).partition(" serve ")
    entry = json.loads(found(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE))
    assert entry[1] == "serve"
    for words in (shlex.split(after), entry[2:]):
        assert options(words)
        assert options(words) <= known
    assert "--allow-host" in known
    shown = shlex.split(found(r"--stop-timeout \d+ edgesppo (.*)$", DOCKERFILE))
    assert options(shown) <= known


def test_both_have_longer_to_stop_than_answers_have_to_end() -> None:
    assert int(found(r"--stop-timeout (\d+)", DOCKERFILE)) > Deadlines().drain_s
    longest = int(found(r"--drain-timeout (\d+)", UNIT))
    assert int(found(r"^TimeoutStopSec=(\d+)$", UNIT)) > longest


def test_an_image_is_compiled_as_a_checkout_is() -> None:
    assert f"ziglang=={ziglang.VERSION}" in DOCKERFILE
    for define in builds._DEFINES:
        assert f"-D{define} " in DOCKERFILE
    program = found('python -c "(from edgesppo.*?)"', DOCKERFILE)
    # The image's own Python runs it, before anything is installed.
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('.'); {program}"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == builds.recipe().strip()
