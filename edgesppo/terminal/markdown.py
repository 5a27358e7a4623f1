"""Markdown as styled cells, one line at a time.

An answer is rendered line by line as it streams; models write a paragraph as one line. Supported
are headings, lists, quotes, rules, tables, emphasis, code spans and links. Anything else stays as
it was written, and no character of it is lost.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.terminal import style
from edgesppo.terminal.cells import cells, width, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgesppo.terminal.cells import Cell

_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*)")
_ITEM = re.compile(r"([ \t]*)([-*+]|\d{1,9}[.)])([ \t]+)(\[[ xX]\] )?(?=\S)")
_QUOTE = re.compile(r" {0,3}((?:> ?){1,8})")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}")
# A line that opens a block of code: its margin, its marks, and the name of the language.
FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^\s`{]*)[^`]*")
_DIVIDER = re.compile(r"[ \t]*\|?([ \t]*:?-+:?[ \t]*\|)+([ \t]*:?-+:?[ \t]*)?")
# Alternatives in the order in which they are tried. A span neither begins nor ends with a space.
# Underscores and stars inside of words are plain characters: snake_case, 2*3*4, x**2.
_INLINE = re.compile(
    r"(?P<escape>\\(?P<escaped>[!-/:-@\[-`{-~]))"
    r"|(?P<ticks>`+)"
    r"|(?P<link>\[(?P<label>[^\[\]]+)\]\((?P<url>[^()\s]+)\))"
    r"|\*\*\*(?P<both>\S|\S.*?\S)\*\*\*"
    r"|(?<![0-9A-Za-z])\*\*(?P<bold>\S|\S.*?[^\s*])\*\*"
    r"|\*\*(?P<bold3>\S|\S.*?[^\s*])\*\*(?![0-9A-Za-z])"
    r"|(?<!\w)__(?P<bold2>\S|\S.*?\S)__(?!\w)"
    r"|(?<![0-9A-Za-z*])\*(?P<italic>[^\s*]|[^\s*].*?[^\s*])\*(?![0-9A-Za-z*])"
    r"|(?<!\w)_(?P<italic2>[^\s_]|[^\s_].*?[^\s_])_(?!\w)"
    r"|~~(?P<struck>\S|\S.*?\S)~~"
)
_TICKS = re.compile("`+")
_SPANS = {
    "both": style.join(style.BOLD, style.ITALIC),
    "bold": style.BOLD,
    "bold2": style.BOLD,
    "bold3": style.BOLD,
    "italic": style.ITALIC,
    "italic2": style.ITALIC,
    "struck": style.STRUCK,
}
_DEEPEST = 4  # levels of emphasis and links within each other
_MOST_BARS = 8  # levels of quotes within quotes
# The longest line and table that are rendered, in characters: longer ones are hardly prose, and
# the time to parse them grows faster than their length.
LONGEST, LONGEST_TABLE = 4_000, 20_000


@dataclass(frozen=True)
class Symbols:
    """The symbols to draw with; `ASCII` is for terminals that are not UTF-8."""

    bullet: str = "•"
    bar: str = "│"
    rule: str = "─"
    boxes: tuple[str, str] = ("☐", "☑")


ASCII = Symbols("*", "|", "-", ("[ ]", "[x]"))


@dataclass(frozen=True)
class Line:
    """One rendered line: its cells, and the indent of its rows after the first when wrapped."""

    cells: list[Cell]
    indent: str = ""


def line(source: str, symbols: Symbols, columns: int) -> Line:
    """Render one line outside of code blocks and tables; a rule is at most `columns` wide."""
    if len(source) > LONGEST:
        return Line([*cells(source)])
    n, text = 0, source
    while n < _MOST_BARS and not _RULE.fullmatch(text) and (quote := _QUOTE.match(text)):
        n, text = n + quote[1].count(">"), text[quote.end() :]
    inner = _unquoted(text, symbols, columns)
    if not n:
        return inner
    bar = (symbols.bar + " ") * n
    return Line([*cells(bar, style.FAINT), *inner.cells], bar + inner.indent)


def rows(line: Line, columns: int) -> list[list[Cell]]:
    """Wrap a rendered line at `columns`; rows after the first get its indent."""
    first, *more = wrap(line.cells, columns)
    if not more or not line.indent:
        return [first, *more]
    rest = line.cells[len(first) :]
    while rest and rest[0][0] == " ":
        rest = rest[1:]
    room = max(10, columns - width(line.indent))
    indent = [*cells(line.indent, style.FAINT)]
    return [first, *([*indent, *row] for row in wrap(rest, room))]


def _unquoted(source: str, symbols: Symbols, columns: int) -> Line:
    """Render a line without its quote marks."""
    if _RULE.fullmatch(source):
        return Line([*cells(symbols.rule * min(columns, 40), style.FAINT)])
    if heading := _HEADING.fullmatch(source):
        return Line([*_inline(_without_closing_marks(heading[1]), style.BOLD)])
    if item := _ITEM.match(source):
        return _item(item, source[item.end() :], symbols)
    return Line([*_inline(source)])


def _without_closing_marks(heading: str) -> str:
    """A heading without the marks that close it; a mark without a space before it stays: C#."""
    text = heading.rstrip(" \t")
    short = text.rstrip("#")
    return short.rstrip(" \t") if not short or short[-1] in " \t" else text


def _item(item: re.Match[str], text: str, symbols: Symbols) -> Line:
    margin, sign, _, box = item.groups()
    mark = sign if sign[0].isdigit() else symbols.bullet
    if box:
        mark = symbols.boxes[box[1] != " "]
    head = f"{margin.expandtabs(4)}{mark} "
    return Line([*cells(head), *_inline(text)], " " * width(head))


def _inline(text: str, base: str = "", depth: int = 0) -> Iterator[Cell]:
    """Render emphasis, code spans and links, which may be nested."""
    at = begin = 0
    ticks = _Ticks(text)
    while depth < _DEEPEST and (match := _INLINE.search(text, begin)):
        begin = match.end()
        if match["ticks"]:
            end = ticks.closing(match)
            if end is None:
                continue  # no closing run: the backticks are text
            begin = end + len(match["ticks"])
            yield from cells(text[at : match.start()], base)
            code = _code_span(text[match.end() : end])
            yield from cells(code, style.join(base, style.MAGENTA))
        else:
            yield from cells(text[at : match.start()], base)
            yield from _span(match, base, depth)
        at = begin
    yield from cells(text[at:], base)


class _Ticks:
    """The positions of the runs of backticks in a text, by length."""

    def __init__(self, text: str) -> None:
        self._runs: dict[int, list[int]] = {}
        for run in _TICKS.finditer(text):
            self._runs.setdefault(len(run[0]), []).append(run.start())

    def closing(self, opening: re.Match[str]) -> int | None:
        """The position of the run that closes this one: the next of the same length."""
        starts = self._runs.get(len(opening["ticks"]), [])
        n = bisect.bisect_left(starts, opening.end())
        return starts[n] if n < len(starts) else None


def _span(match: re.Match[str], base: str, depth: int) -> Iterator[Cell]:
    kind = match.lastgroup
    if match["escape"]:
        yield from cells(match["escaped"], base)
    elif match["link"]:
        yield from _inline(match["label"], style.join(base, style.UNDERLINE), depth + 1)
        if match["label"] != match["url"]:
            yield from cells(f" ({match['url']})", base)
    elif kind in _SPANS:
        yield from _inline(match[kind], style.join(base, _SPANS[kind]), depth + 1)


def _code_span(code: str) -> str:
    padded = code.startswith(" ") and code.endswith(" ") and code.strip()
    return code[1:-1] if padded else code


def is_row(source: str) -> bool:
    """Whether a line belongs to a table."""
    return source.lstrip().startswith("|")


def table(sources: Sequence[str], symbols: Symbols, columns: int) -> list[list[Cell]] | None:
    """Render a table with aligned columns; None if it is not a table, or wider than `columns`."""
    if len(sources) < 2 or sum(map(len, sources)) > LONGEST_TABLE:
        return None
    if max(map(len, sources)) > LONGEST or not _DIVIDER.fullmatch(sources[1]):
        return None
    fields = [_fields(source) for n, source in enumerate(sources) if n != 1]
    n = max(len(row) for row in fields)
    grid = [[[*_inline(text)] for text in [*row, *[""] * (n - len(row))]] for row in fields]
    widths = [max(_cells_width(row[at]) for row in grid) for at in range(n)]
    if sum(widths) + 3 * (n - 1) > columns:
        return None
    right = [field.endswith(":") and not field.startswith(":") for field in _fields(sources[1])]
    right += [False] * (n - len(right))
    head, *body = [_aligned(row, widths, right) for row in grid]
    rule: list[Cell] = [*cells(symbols.rule * (sum(widths) + 3 * (n - 1)), style.FAINT)]
    return [[(text, style.join(was, style.BOLD)) for text, was in head], rule, *body]


def table_as_list(sources: Sequence[str]) -> list[str]:
    """The rows of a table as items of a list, for a screen that is too narrow for it."""
    head, _, *body = [_fields(source) for source in sources]
    items = []
    for first, *others in body:
        if len(head) > 2:
            named = zip(head[1:], others, strict=False)  # a row may be short of some
            others = [f"{name}: {text}" if name else text for name, text in named if text]
        items.append(f"- **{first}**: {'; '.join(others)}")
    return items


def _fields(source: str) -> list[str]:
    """The fields between the bars of a row; an escaped bar is part of a field."""
    inner = source.strip().removeprefix("|").removesuffix("|")
    return [field.strip().replace("\\|", "|") for field in re.split(r"(?<!\\)\|", inner)]


def _aligned(row: list[list[Cell]], widths: list[int], right: list[bool]) -> list[Cell]:
    aligned: list[Cell] = []
    for at, field in enumerate(row):
        room: list[Cell] = [(" ", "")] * (widths[at] - _cells_width(field))
        gap: list[Cell] = [(" ", "")] * (3 if at else 0)
        aligned += gap + (room + field if right[at] else field + room)
    return aligned


def _cells_width(row: list[Cell]) -> int:
    return width("".join(text for text, _ in row))
