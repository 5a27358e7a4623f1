"""Tokens in which llama.cpp's grammar reads a NUL character end the process: they are refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.gguf import gemma2
from edgesppo.gguf.lenient_utf8 import spelling_nul
from edgesppo.llama.weights import NO_TEXT, Weights
from tests.support import gguf_maker as make
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

MARK = "▁".encode()
NUL = [
    *(b"\xc0\x80", b"ab\xc0\x80", b"\xc0\x80b", b"\xc0@", b"\xc0\xc0"),
    *(b"\xe0\x80\x80", b"\xe0@@", b"\xf0\x80\x80\x80", b"\xf0@@@z", b"\xc3(\xc0\x80"),
    *(b"\x80\x80", b"\x80\x80\x80b", b"\x80x\xe0\x80\x80"),  # after the beginning of a character
]
HARMLESS = [
    *(b"\xff\xff", b"\xc3(", b"ab\xe0", b"\xed\xa0\x80", b"\xc0", b"\xc0" + MARK, b"\xe0\x80"),
    *(b"\xc1\x80", b"x\xff\xc0\x80", "é日👍".encode(), b"plain", MARK + b"a"),
]
# In one child for each token: let a grammar read it, also after bytes that begin a character.
ORACLE = """
import os, sys, numpy as np
from pathlib import Path
from edgesppo.llama.grammar import Grammar
from edgesppo.llama.weights import Weights

weights = Weights(Path(sys.argv[1]), vocabulary_only=True)
kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

def reads(begin, token):
    grammar = Grammar(weights, "root ::= [\\\\x01-\\\\U0010FFFF]*")
    for one in (*(6 + byte for byte in begin), token):
        rows = np.zeros(1, kind)
        rows["id"] = one
        grammar.apply(rows)
        if rows["logit"][0] == 0:
            grammar.accept(one)

for token in range(263, weights.n_vocab):
    child = os.fork()
    if not child:
        for begin in (b"", b"\\xe0", b"\\xf0", b"\\xf0\\x80", b"\\xe1\\x80", b"\\xc3"):
            reads(begin, token)
        os._exit(0)
    print(int(os.waitpid(child, 0)[1] != 0))
"""


@pytest.mark.parametrize("token", NUL)
def test_a_token_that_reads_as_nul_is_refused(token: bytes, tmp_path: Path) -> None:
    data = make.model(more_tokens=[token, b"other"])
    make.assert_refused(tmp_path / "model.gguf", data, "llama.cpp would read a NUL character")


def test_other_tokens_are_accepted_and_no_grammar_takes_one_that_is_not_utf8(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(make.model(more_tokens=HARMLESS))
    gemma2.load_summary(path)
    weights = Weights(path, vocabulary_only=True)
    first, single = weights.first_bytes()
    weights.close()
    assert len(single) == 256
    for token, found in zip(HARMLESS, first[263:], strict=True):
        is_text = token.isascii() or token == token.decode("utf-8", "replace").encode()
        assert (found != NO_TEXT) == is_text, token


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process for each token")
def test_the_reading_is_llama_cpps_own(tmp_path: Path) -> None:
    """Whatever ends the process is refused, and hardly anything else."""
    rng, letters = random.Random(1), b"\x80\x80\xc0\xe0\xf0\x80@a\xc3\xa9\xbf\xff\x81\xe1"
    made = (bytes(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(3000 if LONG else 60))
    tokens = [*dict.fromkeys([*NUL, *HARMLESS, *made])]
    path = tmp_path / "model.gguf"
    path.write_bytes(make.model(more_tokens=tokens))
    done = subprocess.run(
        [sys.executable, "-c", ORACLE, str(path)],
        capture_output=True,
        check=True,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    read = zip(tokens, done.stdout.split(), strict=True)
    ending = [token for token, ended in read if ended == b"1"]
    refused = [token for token in tokens if spelling_nul([token]) is not None]
    assert [token for token in ending if token not in refused] == []
    assert set(NUL) <= {*ending}
    assert not {*HARMLESS} & {*refused}
    assert len(ending) > 0.8 * len(refused)
