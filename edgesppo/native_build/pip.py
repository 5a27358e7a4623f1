"""The pip of a Python environment, with those of the user's settings that count here."""

from __future__ import annotations

import ast
import os
import re
from typing import TYPE_CHECKING

from edgesppo.native_build.child import run, say
from edgesppo.native_build.failure import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# pip's own settings that count here: how packages are reached, and which are allowed. All others,
# as `user`, `target` or `only-binary`, are about installations that are not this one.
_SETTINGS = (
    *("index-url", "extra-index-url", "no-index", "find-links", "prefer-binary"),
    *("proxy", "cert", "client-cert", "trusted-host", "keyring-provider"),
    *("timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir"),
    *("constraint", "build-constraint", "uploaded-prior-to"),
)
_SETTING = re.compile(r"^(global|install)\.([a-z-]+)=(.+)$")


OLDEST_PIP = "22.1"  # the first that passes options to a compilation (--config-settings)


def is_too_old(version: str) -> bool:
    """Whether a pip of this version cannot be used."""
    return _numbers(version) < _numbers(OLDEST_PIP)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


class Pip:
    """The pip of an environment; what it writes meanwhile is kept in a folder of ours."""

    def __init__(self, python: Path, scratch: Path) -> None:
        self.python, self.scratch = python, scratch
        self._command = [str(python), "-m", "pip"]
        self._environment = clean_environment(scratch)
        self._environment.update(self._settings())
        self._environment.update(PIP_CONFIG_FILE=os.devnull, PIP_NO_INPUT="1")
        self._environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off")

    def run(
        self,
        *arguments: str | Path,
        doing: str,
        done: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run `pip ARGUMENTS`, with further variables; raises what `run` does."""
        run([*self._command, *arguments], {**self._environment, **(environment or {})}, doing, done)

    def _settings(self) -> dict[str, str]:
        """The settings that count, as environment variables: pip's files hold others, too."""
        # So many -v: a setting may have it quiet, and then it lists nothing.
        command = [*self._command, "-vvv", "config", "list"]
        files = {k: v for k, v in os.environ.items() if k == "PIP_CONFIG_FILE"}
        lines: list[str] = []
        try:
            lines = run(command, self._environment | files, "reading pip's configuration")
        except Failed as error:
            say(f"Going on without pip's configuration, which it cannot read: {error.reason()}")
        found = sorted(match.groups() for match in map(_SETTING.match, lines) if match)
        named = {f"PIP_{name.replace('-', '_').upper()}": name for name in _SETTINGS}
        values = {name: str(ast.literal_eval(value)) for _, name, value in found}
        settings = {variable: values[name] for variable, name in named.items() if name in values}
        return settings | {k: v for k, v in os.environ.items() if k in named}


def clean_environment(scratch: Path) -> dict[str, str]:
    """Our variables without those that change what a Python finds or pip does."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    return kept | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
