"""Compile a JSON Schema to GBNF, the grammars that constrain llama.cpp's sampling.

    gbnf = grammar({"type": "object", "properties": {"age": {"type": "integer"}}})

Drafts 7 to 2020-12. A text that the grammar accepts always parses as JSON and satisfies the schema.
A keyword that is not supported is refused with a UsageError that says where it is: nothing is
ignored silently. Compiling uses only the standard library, and only the schema determines the
result. The supported keywords:

    keyword                   how
    type                      one type, or a list of them
    enum, const               any JSON values; only `type` is supported beside them
    properties, required      in the order of the schema; a required name need not have a schema
    additionalProperties      after the declared ones; by default false if there are properties,
                              and true if there are none
    items, prefixItems        also draft 7's list of items, with `additionalItems`; beside
                              prefixItems, items is false by default unless minItems needs more
    minItems, maxItems        up to 1,000
    minLength, maxLength      in characters; up to 2,000 beside a pattern or format
    pattern                   regular expressions without look-around and back-references
    format                    those in `formats.py`; for strings only
    contentEncoding           base64
    contentMediaType          text/..., which does not restrict a string further
    minimum, maximum,         exact for integers, and for numbers whose bounds have up to 15 digits;
    exclusiveMinimum,         numbers with bounds are written without an exponent
    exclusiveMaximum
    anyOf, allOf              if a grammar can tell the alternatives apart
    oneOf                     if types, consts or required names make its alternatives exclusive
    $ref, $defs, definitions  into the schema itself, as '#/...'; a schema may be recursive

`title`, `description`, `default`, `examples` and the like, and names that begin with "x-", do not
restrict values and are ignored. Without `type`, a schema allows the types that its keywords apply
to. The JSON is written on one line, with at most one space after each comma and colon; each
declared property occurs once; integers have at most 18 digits unless bounds say otherwise,
numbers at most 30 digits and an exponent of at most two.
"""

from __future__ import annotations

from typing import Any

from edgesppo.schema.document import Document, parse
from edgesppo.schema.keywords import ANNOTATIONS, SUPPORTED, loosened, moved
from edgesppo.schema.limits import MAX_BYTES, Work, schema_error
from edgesppo.schema.values import Values

__all__ = ["ANNOTATIONS", "MAX_BYTES", "SUPPORTED", "Work", "grammar", "loosened", "moved", "parse"]


def grammar(schema: Any, work: Work | None = None) -> str:
    """The GBNF text for a schema: an object or a boolean, as Python's json module returns it.

    Several schemas can share the `work` that may be spent on them. Raises UsageError, in bounded
    time, if it is not a schema, too large or not supported.
    """
    try:
        return Values(Document(schema), work or Work()).grammar()
    except RecursionError:
        raise schema_error("", "nested too deeply") from None
