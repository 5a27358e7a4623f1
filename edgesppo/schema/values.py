"""Compile the values that a schema allows to grammar rules, objects and arrays in order.

There is at most one space after each comma and colon, so that a model cannot write them for ever.
"""

from __future__ import annotations

import collections
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

from edgesppo.schema import charset, numbers, patterns
from edgesppo.schema.keywords import BOUNDS, OF_TYPE
from edgesppo.schema.limits import MAX_ENUM, Work, schema_error
from edgesppo.schema.rules import Rules, literal
from edgesppo.schema.shapes import Shapes, types_of, values_of
from edgesppo.schema.strings import RAW, Strings, to_json, trie

if TYPE_CHECKING:
    from edgesppo.schema.automaton import Dfa
    from edgesppo.schema.document import Document
    from edgesppo.schema.rules import Sequence
    from edgesppo.schema.shapes import Shape


class Values:
    """Compiles the schemas of a document to rules, starting at the root."""

    def __init__(self, document: Document, work: Work) -> None:
        self._document = document
        self._work = work
        self._rules = Rules(work)
        self._shapes = Shapes(document, work)
        self._strings = Strings(self._rules, self._work)
        self._todo: collections.deque[tuple[int, Any]] = collections.deque()

    def grammar(self) -> str:
        """The GBNF text of the document."""
        root, _ = self._rules.reserve()
        self._rules.define(root, [(self._value(self._document.root),)])
        while self._todo:
            rule, schema = self._todo.popleft()
            self._work.where = self._document.where(schema)
            body: list[Sequence] = []
            for shape in self._shapes.of(schema):
                body += self._shape(shape)
            self._rules.define(rule, body)
        return self._rules.text()

    def _value(self, schema: Any) -> int:
        """The rule of a schema, which is compiled later, so that it may be recursive."""
        text = to_json(schema)
        self._work.spend(len(text) // 100)
        rule, new = self._rules.reserve(("value", text))
        if new:
            self._todo.append((rule, schema))
        return rule

    def _shape(self, shape: Shape) -> list[Sequence]:
        if "enum" in shape:
            return self._enum(shape)
        body: list[Sequence] = []
        for kind in types_of(shape):
            if kind == "null":
                body.append(literal("null"))
            elif kind == "boolean":
                body += [literal("true"), literal("false")]
            elif kind == "string":
                low, high = _counts(shape, "minLength", "maxLength")
                restrictions = shape.get("pattern", ()), shape.get("format", ())
                body.append(self._strings.of(low, high, *restrictions))
            elif kind == "array":
                body.append(self._array(shape))
            elif kind == "object":
                body.append(self._object(shape))
            else:
                body.append((self._number(shape, whole=kind == "integer"),))
        return body

    def _enum(self, shape: Shape) -> list[Sequence]:
        kinds = set(types_of(shape))
        others = [name for name in shape if kinds & set(OF_TYPE.get(name, ()))]
        if others:
            raise schema_error(
                self._work.where, f"{others[0]} beside enum or const is not supported; remove it"
            )
        if len(shape["enum"]) > MAX_ENUM:
            raise schema_error(
                self._work.where,
                f"enum has {len(shape['enum'])} values, expected at most {MAX_ENUM}",
            )
        texts = [to_json(value) for value in values_of(shape)]
        self._work.spend(len(texts) + sum(map(len, texts)) // 16)
        return trie(self._rules, [(text, ()) for text in texts])

    def _number(self, shape: Shape, *, whole: bool) -> int:
        for name in BOUNDS:
            if name in shape:
                bound = Decimal(str(shape[name]))
                numbers.check(bound, name, whole=whole, where=self._work.where)
        bounds = _bounds(shape, whole=whole)
        rule, new = self._rules.reserve(("number", bounds, whole))
        if not new:
            return rule
        if whole or bounds != numbers.Bounds():
            dfa = numbers.between(bounds, whole=whole, work=self._work)
        else:
            dfa = patterns.automaton(numbers.PLAIN_NUMBER, self._work)
        self._rules.define(rule, self._rules_of(dfa))
        return rule

    def _rules_of(self, dfa: Dfa) -> list[Sequence]:
        """The texts of an automaton as alternatives, without quotes or escapes."""
        states = [self._rules.reserve()[0] for _ in dfa.edges]
        for state, edges in enumerate(dfa.edges):
            body: list[Sequence] = [()] if state in dfa.ends else []
            for letters, target in edges:
                last = not dfa.edges[target]
                body.append((letters,) if last else (letters, states[target]))
            self._rules.define(states[state], body)
        return [(states[0],)] if states else []

    def _array(self, shape: Shape) -> Sequence:
        prefix = shape.get("prefixItems", [])
        low, high = _counts(shape, "minItems", "maxItems")
        # Optional items without a schema are left out.
        further = shape.get("items", not prefix or low > len(prefix))
        most = len(prefix) if further is False else None
        most = high if most is None else min(most, high) if high is not None else most
        known = [self._value(item) for item in prefix[:most]]
        rest = self._value(further) if most is None or most > len(prefix) else None
        start, _ = self._rules.reserve()
        rule, n = start, 0
        while True:
            body: list[Sequence] = [literal("]")] if n >= low else []
            if n == most:
                self._rules.define(rule, body)
                break
            item = known[n] if n < len(known) else rest
            assert item is not None
            last = most is None and n >= max(low, len(known), 1)
            following = rule if last else self._rules.reserve()[0]
            body.append((*(self._comma() if n else ()), item, following))
            self._rules.define(rule, body)
            if last:
                break
            rule, n = following, n + 1
        return (*literal("["), start)

    def _object(self, shape: Shape) -> Sequence:
        names = list(dict.fromkeys([*shape.get("properties", ()), *shape.get("required", ())]))
        # Optional properties without a schema are left out.
        extra = shape.get("additionalProperties", not names)
        return _Object(self, shape, names, extra).rule()

    def _comma(self) -> Sequence:
        return (*literal(","), self._blank())

    def _colon(self) -> Sequence:
        return (*literal(":"), self._blank())

    def _blank(self) -> int:
        rule, new = self._rules.reserve("blank")
        if new:
            self._rules.define(rule, [literal(" "), ()])
        return rule


class _Object:
    """One object: its properties in the order of the schema, then additional ones.

    `_following[i]` is the rule of what may follow a property when those from index i on remain.
    """

    def __init__(self, values: Values, shape: Shape, names: list[str], extra: Any) -> None:
        self._values = values
        self._rules, self._work = values._rules, values._work
        self._names = names
        self._required = set(shape.get("required", ()))
        properties = shape.get("properties", {})
        missing = shape.get("additionalProperties", True)
        self._rule_of = [values._value(properties.get(name, missing)) for name in names]
        self._extra = None if extra is False else values._value(extra)
        self._following = [self._rules.reserve()[0] for _ in range(len(names) + 1)]

        colon = values._colon()
        self._entries = [
            (to_json(name), (*colon, self._rule_of[index], self._following[index + 1]))
            for index, name in enumerate(names)
        ]

    def rule(self) -> Sequence:
        """The sequence of the whole object."""
        more = self._more_properties() if self._extra is not None else None
        choices = [self._choice(at, more) for at in range(len(self._names) + 1)]
        comma = self._values._comma()
        for at, following in enumerate(self._following):
            self._rules.define(following, self._end(at) + self._after(comma, choices[at]))
        return (*literal("{"), self._rules.add(self._end(0) + self._after((), choices[0])))

    def _after(self, sign: Sequence, choice: int | None) -> list[Sequence]:
        return [] if choice is None else [(*sign, choice)]

    def _end(self, at: int) -> list[Sequence]:
        needed = any(name in self._required for name in self._names[at:])
        return [] if needed else [literal("}")]

    def _choice(self, at: int, more: Sequence | None) -> int | None:
        """The properties that can come next, up to and including the first required one."""
        entries = []
        for index in range(at, len(self._names)):
            self._work.spend(2 + len(self._entries[index][0]) // 8)
            entries.append(self._entries[index])
            if self._names[index] in self._required:
                break
        body = trie(self._rules, entries)
        if more is not None and self._end(at):
            body.append(more)
        # A name is either a known one or not: at its end one position is left.
        return self._rules.add(body, may_overlap=more is not None) if body else None

    def _more_properties(self) -> Sequence:
        """An additional property, and what may follow it."""
        assert self._extra is not None
        following, _ = self._rules.reserve()
        one = (*self._other_name(), *self._values._colon(), self._extra, following)
        self._rules.define(following, [literal("}"), (*self._values._comma(), *one)])
        return one

    def _other_name(self) -> Sequence:
        """Any string, without escapes, except the names of the properties."""
        if not self._names:
            return self._values._strings.any()
        free, new = self._rules.reserve("name")
        if new:
            self._rules.define(free, [(RAW, free), literal('"')])
        # The rule of each prefix of a name -> the rules of the prefixes one letter longer.
        start, _ = self._rules.reserve()
        longer: dict[int, dict[str, int]] = {start: {}}
        complete = set()
        for name in self._names:
            rule = start
            for letter in name:
                if not charset.intersection(RAW, charset.of(letter)):
                    break
                self._work.spend()
                if letter not in longer[rule]:
                    longer[rule][letter], _ = self._rules.reserve()
                    longer[longer[rule][letter]] = {}
                rule = longer[rule][letter]
            else:
                complete.add(rule)
        for rule, following in longer.items():
            others = charset.difference(RAW, charset.of("".join(following)))
            body: list[Sequence] = [] if rule in complete else [literal('"')]
            body += [(*literal(letter), child) for letter, child in following.items()]
            self._rules.define(rule, [*body, (others, free)])
        return (*literal('"'), start)


def _counts(shape: Shape, least: str, most: str) -> tuple[int, int | None]:
    """The two bounds of a count, which a schema may also write as 2.0."""
    high = shape.get(most)
    return int(shape.get(least, 0)), None if high is None else int(high)


def _bounds(shape: Shape, *, whole: bool) -> numbers.Bounds:
    """The tightest bounds of a shape; for whole numbers rounded inwards and inclusive."""
    low, open_low = _tightest(shape, "minimum", "exclusiveMinimum")
    high, open_high = _tightest(shape, "maximum", "exclusiveMaximum")
    # Integers are exact; Decimal arithmetic rounds to 28 digits.
    if whole and low is not None:
        up = int(low.to_integral_value(ROUND_CEILING))
        low, open_low = Decimal(up + 1 if open_low and up == low else up), False
    if whole and high is not None:
        down = int(high.to_integral_value(ROUND_FLOOR))
        high, open_high = Decimal(down - 1 if open_high and down == high else down), False
    return numbers.Bounds(low, high, open_low, open_high)


def _tightest(shape: Shape, closed: str, opened: str) -> tuple[Decimal | None, bool]:
    bounds = [
        (Decimal(str(shape[name])), name == opened) for name in (closed, opened) if name in shape
    ]
    if not bounds:
        return None, False
    if opened == "exclusiveMinimum":
        return max(bounds)
    return min(bounds, key=lambda bound: (bound[0], not bound[1]))
