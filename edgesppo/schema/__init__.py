"""Owns JSON Schema -> GBNF, the grammars that llama.cpp's sampling can be bound to. Pure.

    gbnf = grammar({"type": "object", "properties": {"age": {"type": "integer"}}})

Drafts 7 to 2020-12. What a grammar lets through always parses as JSON and fits the schema. What
is not honoured is refused by name, with a UsageError that says where: nothing is left out
silently. The keywords that are honoured:

    keyword                   how
    type                      one, or a list of them
    enum, const               any JSON values; beside them only `type` is honoured
    properties, required      in the order of the schema; a required name may have no schema
    additionalProperties      behind the declared ones; absent, it counts as false where there are
                              properties, and as true where there are none
    items, prefixItems        also draft 7's list of items, with `additionalItems`; absent beside
                              prefixItems, items counts as false where minItems does not need more
    minItems, maxItems        up to 1,000
    minLength, maxLength      in characters; up to 2,000 beside a pattern or format
    pattern                   regular expressions without look-around and back-references
    format                    those of `formats.py`; for strings only
    contentEncoding           base64
    contentMediaType          text/..., which says no more of a string
    minimum, maximum,         exact for integers, and for numbers whose bounds have up to 15 digits;
    exclusiveMinimum,         numbers between bounds are written without an exponent
    exclusiveMaximum
    anyOf, allOf              any, where a grammar can tell the alternatives apart
    oneOf                     where types, consts or required names keep its alternatives apart
    $ref, $defs, definitions  into the schema itself, as '#/...'; a schema may hold itself

`title`, `description`, `default`, `examples` and the like, and names that begin with "x-", say
nothing of values and are passed over. Without `type`, a schema speaks of the types that its
keywords are about. The JSON is written on one line, with at most one blank behind each comma and
colon; an object's properties come once each, integers have at most 18 digits where no bound says
otherwise, numbers at most 30 and an exponent of two.
"""

from __future__ import annotations

from typing import Any

from edgesppo.schema.document import Document, parse
from edgesppo.schema.keywords import ANNOTATIONS, HONOURED
from edgesppo.schema.limits import MAX_BYTES, refused
from edgesppo.schema.values import Values

__all__ = ["ANNOTATIONS", "HONOURED", "MAX_BYTES", "grammar", "parse"]


def grammar(schema: Any) -> str:
    """The GBNF text of a schema: an object or a boolean, as Python's json gives it.

    Raises UsageError, in bounded time, for what is no schema, too large or not honoured.
    """
    try:
        return Values(Document(schema)).grammar()
    except RecursionError:
        raise refused("", "nested too deep") from None
