"""JSON Schemas with matching and non-matching texts, keyword by keyword.

The texts are written as a grammar writes them: properties in the schema's order, on one line.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A schema, texts that its grammar must match, and texts that it must not match.

    `unmade` are texts that satisfy the schema but are not generated: other spellings, or
    properties that the schema does not mention.
    """

    name: str
    schema: Any
    valid: list[str]
    invalid: list[str]
    unmade: tuple[str, ...] = ()


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 6},
                "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["name"],
        }
    },
    "$ref": "#/$defs/node",
}
_EXPRESSION = {
    "definitions": {
        "e": {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 9},
                _object(left={"$ref": "#/definitions/e"}, op={"const": "+"}),
                _object(left={"$ref": "#/definitions/e"}, op={"const": "-"}),
            ]
        }
    },
    "$ref": "#/definitions/e",
}
CASES = [
    Case("true", True, ["null", "-1.5e3", '"x"', "[[],{}]", '{"a": 1,"a":2}'], ["", "nul", "01"]),
    Case("empty", {}, ["1", '{"b":[true,false]}'], ["'x'", "[1,]", '{"a"}'], ("[1  ]",)),
    Case("null", {"type": "null"}, ["null"], ["0", '""', "false", "nulll"]),
    Case("boolean", {"type": "boolean"}, ["true", "false"], ["0", '"true"', "True"]),
    Case(
        "integer",
        {"type": "integer"},
        ["0", "7", "-7", "123456789012345678"],
        ["-", "1.5", "01", "+1", '"1"'],
        ("1234567890123456789", "1.0", "-0"),
    ),
    Case(
        "number",
        {"type": "number"},
        ["0", "-0", "1.5", "-12.25e-3", "1E5", "7e+09"],
        [".5", "1.", "1e", "--1", "0x1", "NaN", "Infinity"],
        ("1e100",),
    ),
    Case(
        "string",
        {"type": "string"},
        ['""', '"a b"', '"\\n\\u00e9\\\\"', '"\\ud83d\\ude00"', '"é😀"', '"\\/"'],
        ['"', '"a', "a", '"\n"', '"\\x"', '"\\u00g0"', "'a'", '"a""'],
        ('"\\ud83d"', '"\\ude00\\ud83d"'),
    ),
    Case("types", {"type": ["string", "null"]}, ['"a"', "null"], ["1", "true", "{}"]),
    Case("number types", {"type": ["integer", "number"]}, ["1", "1.5"], ['"1"']),
    Case(
        "enum",
        {"enum": ["car", "cart", "dog", 1, 12, 1.5, None, [1, {"a": 2}], 'a"\\\n é']},
        ['"car"', '"cart"', "1", "12", "1.5", "null", '[1,{"a":2}]', '"a\\"\\\\\\n é"'],
        ['"ca"', '"carts"', "2", "123", "[1]", "true", '"do"'],
        ("1.0", '[1, {"a": 2}]'),
    ),
    Case("enum with type", {"type": "integer", "enum": ["a", 1, 2.5, 3.0]}, ["1", "3.0"], ["2.5"]),
    Case("const", {"const": {"a": [True]}}, ['{"a":[true]}'], ["{}", '{"a":[1]}', "true"]),
    Case("const beside enum", {"const": 1, "enum": [2, 1.0, "1"]}, ["1.0"], ["2", '"1"']),
    Case("const false is not 0", {"const": False}, ["false"], ["0"]),
    Case(
        "properties",
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "null"}, "c": {"const": 1}},
            "required": ["b"],
        },
        ['{"b":null}', '{"a": 1, "b": null}', '{"a":1,"b":null,"c":1}', '{"b":null,"c": 1}'],
        ["{}", '{"a":1}', '{"a":"x","b":null}', '{"b":null,}', '{"a":1,"c":1}', "null"],
        ('{"b":null,"a":1}', '{"b":null,"d":1}', '{ "b":null}', '{"b" :null}', '{"b":  null}'),
    ),
    Case(
        "optional properties",
        {"properties": {name: {"type": "integer"} for name in ("x", "xy", "xyz", "y")}},
        ["{}", '{"x":1}', '{"xy":1}', '{"x":1,"xyz":2}', '{"xy":1,"y":2}'],
        ['{"x":null}', '{"x":1 "y":2}', '{,"x":1}'],
        ('{"xyzz":1}', '{"y":1,"x":1}', "[]"),
    ),
    Case(
        "required without a schema",
        {"type": "object", "required": ["a", "b"]},
        ['{"a":1,"b":[]}'],
        ["{}", '{"a":1}', '{"b":1}'],
    ),
    Case(
        "no more properties",
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        ["{}", '{"a":[]}'],
        ['{"b":1}', '{"a":1,"b":1}'],
    ),
    Case(
        "more properties",
        {
            "type": "object",
            "properties": {"ab": {"type": "integer"}, "abc": {"type": "null"}, 'q"': {}},
            "required": ["ab"],
            "additionalProperties": {"type": "boolean"},
        },
        ['{"ab":1,"a":true}', '{"ab":1,"abc":null,"abd":true,"":false}', '{"ab":1,"q":true}'],
        ["{}", '{"a":true}', '{"ab":1,"abc":true}', '{"ab":1,"x":1}', '{"ab":true}'],
        ('{"ab":1,"z":true,"abc":null}', '{"ab":1,"\\u0061":true}'),
    ),
    Case(
        "a map",
        {"type": "object", "additionalProperties": {"type": "integer", "maximum": 9}},
        ["{}", '{"a":1,"b\\n": 2}'],
        ['{"a":10}', '{"a":null}', "[]"],
    ),
    Case("any object", {"type": "object"}, ["{}", '{"a":{"b":[1]}}'], ["[]", "1", '{"a":}']),
    Case(
        "a property that cannot be",
        {"type": "object", "properties": {"a": False, "b": True}},
        ["{}", '{"b":1}'],
        ['{"a":1}', '{"a":1,"b":1}'],
    ),
    Case(
        "items",
        {"type": "array", "items": {"type": "integer"}},
        ["[]", "[1]", "[1,2, 3]"],
        ["[1,]", "[,1]", '["a"]', "[1 2]", "{}"],
        ("[ 1]", "[1 ]"),
    ),
    Case(
        "array bounds",
        {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 4},
        ["[1,1]", "[1,1,1]", "[1,1,1,1]"],
        ["[]", "[1]", "[1,1,1,1,1]", "[1,1,2]"],
    ),
    Case("no items", {"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    Case("at least", {"items": {"const": 1}, "minItems": 3}, ["[1,1,1]", "[1,1,1,1]"], ["[1,1]"]),
    Case(
        "prefix",
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "minItems": 1},
        ["[1]", "[1,null]"],
        ["[]", "[null]", "[1,1]"],
        ("[1,null,true]",),
    ),
    Case(
        "prefix and rest",
        {"prefixItems": [{"const": 1}], "items": {"const": 2}, "maxItems": 3, "minItems": 1},
        ["[1]", "[1,2]", "[1,2,2]"],
        ["[]", "[2]", "[1,1]", "[1,2,2,2]"],
    ),
    Case(
        "draft 7 tuple",
        {"items": [{"const": 1}, {"const": 2}], "additionalItems": False, "minItems": 2},
        ["[1,2]"],
        ["[1]", "[1,2,3]"],
    ),
    Case(
        "bounds of counts written with a point",
        {"items": {"const": 1}, "minItems": 1.0, "maxItems": 2.0},
        ["[1]", "[1,1]"],
        ["[]", "[1,1,1]"],
    ),
    Case(
        "string bounds",
        {"type": "string", "minLength": 2, "maxLength": 4},
        ['"ab"', '"abcd"', '"\\n\\n"', '"😀é"', '"\\ud83d\\ude00\\ud83d\\ude00"'],
        ['"a"', '"abcde"', '""', '"\\ud83d\\ude00"'],
    ),
    Case(
        "long string bounds",
        {"type": "string", "minLength": 70, "maxLength": 200},
        [f'"{"a" * n}"' for n in (70, 71, 133, 134, 135, 199, 200)],
        [f'"{"a" * n}"' for n in (0, 64, 69, 201, 264)],
    ),
    Case(
        "very long string bounds",
        {"type": "string", "maxLength": 64 * 64 + 64 + 2},
        [f'"{"é" * n}"' for n in (0, 63, 64, 65, 4096, 4162)],
        [f'"{"é" * 4163}"'],
    ),
    Case(
        "pattern",
        {"type": "string", "pattern": "^[a-c]{2,3}(-\\d+)?$"},
        ['"ab"', '"abc-12"', '"cc-0"'],
        ['"a"', '"abcd"', '"ab-"', '"xab"', '"ab-1x"'],
    ),
    Case(
        "pattern somewhere",
        {"type": "string", "pattern": "b+"},
        ['"b"', '"abba"', '"b\\nx"'],
        ['"a"', '""'],
        ('"\\u00e9b"',),
    ),
    Case(
        "pattern and bounds",
        {"type": "string", "pattern": "^(ab|a)*$", "minLength": 3, "maxLength": 4},
        ['"aba"', '"aaaa"', '"abab"'],
        ['"ab"', '"abb"', '"ababa"', '"aab b"'],
    ),
    Case(
        "pattern of control characters",
        {"type": "string", "pattern": "^\\x03[\\x00-\\x1f]$"},
        ['"\\u0003\\n"'],
        ['"\\u0003"', '"\\u0004\\n"', '"c\\n"'],
        ('"\\u0003\\u0003"',),
    ),
    Case(
        "base64",
        {"type": "string", "contentEncoding": "base64", "contentMediaType": "text/plain"},
        ['""', '"YWI="', '"YWJj"', '"YQ=="'],
        ["1"],
        ('"YWJ"', '"YWI=YWI="', '"Y==="', '"Y%Jj"'),
    ),
    Case(
        "pattern with escapes",
        {"type": "string", "pattern": '^["\\\\/\\n\\u00e9]+$'},
        ['"\\""', '"\\\\/\\né"'],
        ['"x"', '""', '"n"'],
        ('"\\u00e9"',),
    ),
    Case(
        "integer range",
        {"type": "integer", "minimum": -12, "maximum": 105},
        ["-12", "-9", "0", "99", "100", "105"],
        ["-13", "106", "-100", "1000", "110"],
        ("-0",),
    ),
    Case(
        "open integer range",
        {"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 12.5},
        ["10", "11", "12"],
        ["9", "13", "1", "100"],
    ),
    Case(
        "integers beyond 28 digits",
        {"type": "integer", "minimum": -(10**34) - 1, "exclusiveMaximum": 10**34 + 3},
        [str(-(10**34) - 1), str(10**34 + 2)],
        [str(-(10**34) - 2), str(10**34 + 3)],
    ),
    Case(
        "number range",
        {"type": "number", "minimum": -0.5, "exclusiveMaximum": 2.25},
        ["-0.5", "-0.5000", "-0.49", "0", "2", "2.2499", "1.999999", "0.0"],
        ["-0.51", "-1", "2.25", "2.2500", "2.3", "3", "10"],
        ("1e0",),
    ),
    Case(
        "number above",
        {"type": "number", "exclusiveMinimum": 100},
        ["101", "100.01", "99999999"],
        ["100", "100.0", "99.9", "-101"],
    ),
    Case(
        "anyOf",
        {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}, {"const": None}]},
        ["1", '"ab"', "null"],
        ["1.5", '"abc"', "{}", "true"],
    ),
    Case(
        "anyOf that overlaps",
        {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "number", "maximum": 6}]},
        ["5", "7", "5.5", "6.0", "-3.25"],
        ["6.5", "7.1"],
    ),
    Case(
        "anyOf of strings",
        {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"type": "string", "maxLength": 2}]},
        ['"aaaa"', '"xy"', '""', '"\\n"'],
        ['"aab"', '"xyz"'],
    ),
    Case(
        "anyOf of objects that begin alike",
        {
            "anyOf": [
                _object(k={"type": "string", "maxLength": 3}, a={"type": "integer"}),
                _object(k={"type": "string", "maxLength": 3}, b={"type": "null"}),
                _object(k={"const": 1}, a={"type": "string", "maxLength": 1}),
            ]
        },
        ['{"k":"x","a":1}', '{"k":"x","b":null}', '{"k":1,"a":"z"}'],
        ['{"k":"x"}', '{"k":"x","a":"z"}', '{"k":1,"b":null}', '{"k":1,"a":1}'],
        ('{"k":"x","a":1,"b":null}',),
    ),
    Case(
        "anyOf beside properties",
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        ['{"a":1}', '{"b":1}', '{"a":1,"b":1}'],
        ["{}", '{"a":null}'],
    ),
    Case(
        "oneOf by const",
        {
            "oneOf": [
                _object(kind={"const": "cat"}, lives={"type": "integer", "maximum": 9}),
                _object(kind={"const": "dog"}, good={"type": "boolean"}),
            ]
        },
        ['{"kind":"cat","lives":9}', '{"kind":"dog","good":true}'],
        ['{"kind":"cat","good":true}', '{"kind":"cow"}', '{"kind":"cat","lives":10}'],
    ),
    Case("oneOf by type", {"oneOf": [{"type": "null"}, {"type": "array"}]}, ["null", "[1]"], ["1"]),
    Case(
        "allOf",
        {
            "allOf": [
                {"type": ["integer", "string"], "minimum": 3},
                {"type": "number", "maximum": 9, "exclusiveMinimum": 3},
            ]
        },
        ["4", "9"],
        ["3", "10", '"a"', "4.5"],
    ),
    Case(
        "allOf of objects",
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"minimum": 1}}, "required": ["a"]},
                {"properties": {"a": {"type": "integer"}, "b": {"type": "null"}}},
            ]
        },
        ['{"a":1}', '{"a":2,"b":null}'],
        ["{}", '{"a":0}', '{"a":1.5}', '{"b":null}', '{"a":1,"b":1}'],
    ),
    Case(
        "a reference with siblings",
        {"$defs": {"n": {"type": "integer", "minimum": 0}}, "$ref": "#/$defs/n", "maximum": 5},
        ["0", "5"],
        ["-1", "6"],
    ),
    Case(
        "references by pointer",
        {
            "type": "object",
            "properties": {"a/b~c": {"type": "null"}, "d": {"$ref": "#/properties/a~1b~0c"}},
        },
        ['{"a/b~c":null,"d":null}'],
        ['{"d":1}'],
    ),
    Case(
        "a tree",
        _TREE,
        ['{"name":"a"}', '{"name":"a","kids":[{"name":"b","kids":[]},{"name":"c"}]}'],
        ['{"kids":[]}', '{"name":"a","kids":[{}]}', '{"name":"a","kids":[1]}'],
    ),
    Case(
        "an expression whose alternatives begin alike",
        _EXPRESSION,
        ["1", '{"left":1,"op":"+"}', '{"left":{"left":{"left":2,"op":"-"},"op":"+"},"op":"-"}'],
        ['{"left":1}', '{"left":1,"op":"*"}', '{"left":10,"op":"+"}'],
    ),
    Case(
        "annotations",
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.com/x",
            "title": "T",
            "description": "D",
            "default": 3,
            "examples": [3],
            "x-order": 1,
            "type": "integer",
            "format": "int32",
        },
        ["3"],
        ['"3"'],
    ),
]
