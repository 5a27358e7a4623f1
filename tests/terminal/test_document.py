"""A Markdown document is drawn at the width of a terminal, and nothing of it is lost."""

from __future__ import annotations

import re

import pytest

from edgesppo.help import pages
from edgesppo.terminal import document
from edgesppo.terminal.markdown import ASCII

TEXT = """\
# A title

A paragraph that was
wrapped by its author, with `code` and **weight**.
- one
  item of two lines
- another

| name | what it is |
| --- | --- |
| `a` | the first letter |
| `z` | the last letter |

```text
  code   as it is
```

    indented code,
    two lines
"""


def drawn(text: str, columns: int = 40) -> list[str]:
    return [re.sub(r"\x1b\[[\d;]*m", "", row) for row in document.rows(text, ASCII, columns)]


WIDE = """\
A title

A paragraph that was wrapped by its author, with code and
weight.
* one item of two lines
* another

name   what it is
-----------------------
a      the first letter
z      the last letter

    code   as it is

  indented code,
  two lines
"""
NARROW = """\
* a: the first
  letter
* z: the last
  letter

  code   as it is
"""


def test_paragraphs_are_wrapped_anew_and_code_is_kept() -> None:
    assert [row.rstrip() for row in drawn(TEXT, 60)] == WIDE.splitlines()


def test_a_table_that_is_too_wide_becomes_a_list() -> None:
    assert NARROW in "\n".join(drawn(TEXT, 16))
    three = "| a | b | c |\n| --- | --- | --- |\n| one | two | three |\n| x |  | y |"
    assert drawn(three, 12) == ["* one: b:", "  two; c:", "  three", "* x: c: y"]


@pytest.mark.parametrize(("topic", "columns"), [("hardware", 20), ("environment", 79)])
def test_no_word_of_a_page_is_lost_and_no_row_too_wide(topic: str, columns: int) -> None:
    text = pages.page(topic)
    assert text is not None
    plain = drawn(text, columns)
    shown = "".join("".join(plain).split())
    heads = re.compile(r"^\|.*\n(?=\| -)|^```\w+$", re.MULTILINE)  # dropped: of tables, of code
    words = {*re.findall(r"[A-Za-z]{4,}", heads.sub("", text))}
    assert {word for word in words if word not in shown} == set()
    code = {line.strip() for line in text.splitlines()}
    longest = max(len(word) for row in plain for word in row.split()) + 2
    assert [
        row for row in plain if len(row) > max(columns, longest) and row.strip() not in code
    ] == []
