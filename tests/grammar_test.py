"""Grammars against their oracles: random texts of a schema's grammar satisfy the schema (Python's jsonschema), and an
expression's grammar takes what Python's re matches and nothing else. What cannot be kept is refused with place and keyword.
"""
import json
import os
import pathlib
import random
import re
import subprocess

import jsonschema
import pytest

SEED = int(os.environ.get("TESSERA_FUZZ_SEED", "1"))
ROUNDS = int(os.environ.get("TESSERA_FUZZ_ROUNDS", "400"))


@pytest.fixture(scope="module")
def probe(tessera):
    """probe(jobs) -> answers of the compiler, one for each."""
    program = pathlib.Path(tessera).parent / "grammar_probe"

    def ask(jobs):
        lines = "".join(json.dumps({"texts": [], "samples": 0, "seed": SEED, **job}) + "\n" for job in jobs)
        result = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=300, check=True)
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        assert len(answers) == len(jobs), result.stderr
        return answers

    return ask


def check_samples(schema, answer):
    assert "error" not in answer, (schema, answer)
    for text in answer["samples"]:
        try:
            jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(json.loads(text))
        except Exception as error:
            raise AssertionError(f"{json.dumps(schema, ensure_ascii=False)}: {text!r}: {error}") from error


PATTERNS = ["^[a-z]+$", "a", "^\\d{3}-\\d{4}$", "^(yes|no)$", "[^a-c]{2}", "^x?y*z+$", "é|ü", "^.{2,4}$", "^\\w+@\\w+\\.com$", "\\\\", "^[\"\\\\]*$", "(?:ab)+", "^$|^a", "\\S", "^\\D\\W$"]


def random_number_rules(rng):
    out = {}
    bound = lambda: rng.choice([0, 1, -1, 5, -5, 10, 100, 99, -1000, 123456, 0.5, -0.25, 2.75, 1e-3, 10.0, -99.5, 1e6])
    if rng.random() < 0.6:
        out[rng.choice(["minimum", "exclusiveMinimum"])] = bound()
    if rng.random() < 0.6:
        low = max(out.values(), default=-2000)
        out[rng.choice(["maximum", "exclusiveMaximum"])] = low + rng.choice([1, 2, 10, 0.5, 1000, 5e5])
    if rng.random() < 0.3:
        out["multipleOf"] = rng.choice([1, 2, 3, 7, 10, 100, 0.5, 0.25])
    return out


def random_schema(rng, depth=0):
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "several", "pattern", "number", "format"]
    kind = rng.choice(kinds + (["object"] * 3 + ["array"] * 2 + ["tuple", "anyOf", "allOf", "oneOf", "any", "map", "set"] if depth < 3 else []))
    down = lambda: random_schema(rng, depth + 1)
    low = rng.randrange(4)
    if kind == "enum":
        return {"enum": rng.sample(["a", "b c", 'q"', "é", 1, 2.5, None, True, [1, "x"], {"k": 1}], rng.randrange(1, 4))}
    if kind == "const":
        return {"const": rng.choice(["yes", 7, None, "日本\n"])}
    if kind == "several":
        return {"type": rng.sample(["string", "integer", "null", "boolean"], 2), **rng.choice([{}, {"minLength": 1}, {"minimum": 3}])}
    if kind == "any":
        return rng.choice([True, {}])
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(PATTERNS), **rng.choice([{}, {"maxLength": 8}, {"minLength": 1, "maxLength": 9}])}
    if kind == "format":
        return {"type": "string", "format": rng.choice(["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "hostname", "uri", "color-of-the-day"])}
    if kind == "string":
        return {"type": "string", **rng.choice([{}, {"maxLength": low + 3}, {"minLength": low}, {"minLength": low, "maxLength": low}])}
    if kind in ("integer", "number"):
        return {"type": kind, **random_number_rules(rng)}
    if kind == "anyOf":
        return {"anyOf": [down() for _ in range(rng.randrange(1, 4))], **rng.choice([{}, {"type": ["string", "object", "integer", "null", "array", "boolean", "number"]}])}
    if kind == "oneOf":
        tags = rng.sample(["cat", "dog", "cow"], 2)
        return rng.choice([{"oneOf": [{"type": "object", "properties": {"kind": {"const": t}, "x": down()}, "required": ["kind"]} for t in tags]},
                           {"oneOf": [{"type": "string"}, {"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 2}]},
                           {"oneOf": [{"type": "object", "properties": {t: down()}, "required": [t], "additionalProperties": False} for t in tags]}])
    if kind == "allOf":
        return rng.choice([{"allOf": [{"type": "string", "minLength": 2}, {"pattern": "^[a-z]*$"}, {"maxLength": 5}]},
                           {"allOf": [{"type": "number"}, random_number_rules(rng)]},
                           {"type": "object", "properties": {"a": down()}, "allOf": [{"properties": {"b": {"type": "integer"}}, "required": ["b"]}, {"properties": {"b": {"minimum": 2}}}]},
                           {"allOf": [{"enum": ["a", "b", 3]}, {"type": "string"}]}])
    if kind == "map":
        return rng.choice([{"type": "object", "patternProperties": {"^x": {"type": "integer"}, "y$": {"minimum": 0}}, "additionalProperties": rng.choice([False, {"type": "null"}])},
                           {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,3}$"}, "additionalProperties": {"type": "boolean"}},
                           {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1, "maxProperties": 1 + low},
                           {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
                           {"type": "object", "properties": {n: {"type": "null"} for n in "abcd"}, "minProperties": low, "maxProperties": low + 1, "additionalProperties": False}])
    if kind == "set":
        return {"type": "array", "items": {"enum": ["a", "b", "c", 1]}, "uniqueItems": True, "minItems": low, **rng.choice([{}, {"maxItems": 4}])}
    if kind == "tuple":
        return {"type": "array", "prefixItems": [down(), down()], "items": rng.choice([False, True, {"type": "integer"}]), **rng.choice([{}, {"minItems": 2}])}
    if kind == "array":
        return {"type": "array", **rng.choice([{}, {"items": down()}]), **rng.choice([{}, {"minItems": low}, {"minItems": low, "maxItems": low + 2}])}
    if kind == "object":
        names = rng.sample(["name", "age", "a b", 'quo"te', "é", "tags", "next"], rng.randrange(4))
        out = {"type": "object", "properties": {n: down() for n in names}, "required": rng.sample(names, rng.randrange(len(names) + 1))}
        if rng.random() < 0.5:
            out["additionalProperties"] = rng.choice([False, True, {"type": "integer"}])
        if rng.random() < 0.3:
            del out["properties"], out["required"]
        return out
    return {"type": kind}


def test_texts_of_random_schemas_satisfy_them(probe):
    rng = random.Random(SEED)
    schemas = [random_schema(rng) for _ in range(ROUNDS)]
    impossible = 0
    for schema, answer in zip(schemas, probe([{"schema": s, "samples": 8, "seed": i} for i, s in enumerate(schemas)])):
        if "no text satisfies" in answer.get("error", ""):
            impossible += 1
            continue
        check_samples(schema, answer)
    assert impossible < ROUNDS / 10


def test_numbers_inside_of_their_bounds_and_no_others_are_taken(probe):
    rng = random.Random(SEED)
    jobs, wanted = [], []
    for _ in range(ROUNDS // 2):
        schema = {"type": rng.choice(["integer", "number"]), **random_number_rules(rng)}
        values = {v for b in schema.values() if not isinstance(b, str) for v in (b, b + 1, b - 1, b + 0.5, b - 0.25, b * 2)} | {0, 1, -1, 7, 0.5, 123456, -99.25}
        values |= {rng.choice([1, -1]) * round(rng.uniform(0, 10 ** rng.randrange(1, 6)), rng.randrange(3)) for _ in range(20)}
        texts = sorted({re.sub(r"\.0$", "", repr(round(float(v), 6))) for v in values if abs(v) < 1e8 and "e" not in repr(float(v))} - {"-0"})
        if len(schema) == 1:
            continue
        jobs.append({"schema": schema, "texts": texts})
        wanted.append([jsonschema.Draft202012Validator(schema).is_valid(json.loads(t)) for t in texts])
    for job, answer, expected in zip(jobs, probe(jobs), wanted):
        if "error" in answer:
            assert "no text satisfies" in answer["error"] and not any(expected), (job, answer)
            continue
        assert dict(zip(job["texts"], answer["taken"])) == dict(zip(job["texts"], expected)), job["schema"]
    assert len(jobs) > ROUNDS // 4


def random_regex(rng, depth=0):
    atom = lambda: rng.choice(["a", "b", "c", "1", " ", "_", ".", "\\d", "\\w", "\\s", "\\D", "[ab]", "[^a]", "[a-c1]", "[^\\d]", "[\\w-]", "\\.", "-"])
    if depth > 3:
        return atom()
    inner = lambda: random_regex(rng, depth + 1)
    return rng.choice([atom, atom, lambda: inner() + inner(), lambda: f"({inner()}|{inner()})", lambda: f"(?:{inner()}){rng.choice(['*', '+', '?', '{2}', '{1,2}', '{0,1}', '*?', '{2,}'])}",
                       lambda: f"^{inner()}", lambda: f"{inner()}$", lambda: f"({inner()}|)"])()


def test_regular_expressions_take_what_python_matches(probe):
    rng = random.Random(SEED)
    jobs, wanted = [], []
    while len(jobs) < 2 * ROUNDS:
        regex = random_regex(rng)
        texts = ["".join(rng.choice("abc1 _.-") for _ in range(rng.randrange(7))) for _ in range(40)] + [""]
        if len(jobs) % 2:
            jobs.append({"regex": regex, "texts": texts, "samples": 4})
            wanted.append([re.fullmatch(regex, t) is not None for t in texts])
        else:
            jobs.append({"schema": {"type": "string", "pattern": regex}, "texts": [json.dumps(t) for t in texts], "samples": 4})
            wanted.append([re.search(regex, t) is not None for t in texts])
    matched = 0
    for job, answer, expected in zip(jobs, probe(jobs), wanted):
        regex = job.get("regex") or job["schema"]["pattern"]
        if "error" in answer:
            assert "no text satisfies" in answer["error"] and not any(expected), (regex, answer)
            continue
        assert answer["taken"] == expected, (regex, [t for t, a, b in zip(job["texts"], answer["taken"], expected) if a != b])
        for text in answer["samples"]:
            assert re.fullmatch(regex, text) if "regex" in job else re.search(regex, json.loads(text)), (regex, text)
        matched += sum(expected)
    assert matched > ROUNDS


def test_recursive_and_shared_schemas(probe):
    node = {"type": "object", "properties": {"value": {"type": "integer", "minimum": 1, "maximum": 9}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}},
            "required": ["value", "children"], "additionalProperties": False}
    expression = {"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"op": {"enum": ["+", "-"]}, "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}},
                                                   "required": ["op", "left", "right"], "additionalProperties": False}]}
    schemas = [{"$defs": {"node": node}, "$ref": "#/$defs/node"}, {"$defs": {"e": expression}, "$ref": "#/$defs/e"},
               {"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"const": 1}}, "required": ["v"], "additionalProperties": False},
               {"$defs": {"a~b": {"type": "integer"}, "list": {"anyOf": [{"type": "null"}]}}, "anyOf": [{"$ref": "#/$defs/a~0b"}, {"$ref": "#/$defs/list/anyOf/0"}]},
               {"$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}}, "$ref": "#/$defs/base", "properties": {"x": {"type": "null"}}, "required": ["x"]}]
    for schema, answer in zip(schemas, probe([{"schema": s, "samples": 30} for s in schemas])):
        check_samples(schema, answer)


REFUSED = [({"not": {}}, "#: 'not' is not supported"), ({"properties": {"a": {"if": {}}}}, "#/properties/a: 'if' is not supported"), ({"type": "text"}, "type must be"), (5, "must be an object"),
           ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "the schemas 0 and 1 of 'oneOf' may hold at the same time"), ({"pattern": "(?=a)"}, "at character 2: look-around"),
           ({"properties": {"a": {"pattern": "(a"}}}, "#/properties/a: regular expression at character 2: '(' without ')'"), ({"pattern": "\\bx"}, "'\\b' is not supported"), ({"pattern": "(a)\\1"}, "'\\1'"),
           ({"pattern": "a{2000}"}, "more than 1000"), ({"pattern": "(a|b)*a(a|b){20}"}, "too many states"), ({"multipleOf": 0}, "above 0"), ({"type": "number", "multipleOf": 12345}, "multipleOf"), ({"minimum": "1"}, "must be a number"),
           ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "'uniqueItems' is supported for"), ({"$ref": "#/$defs/x"}, "not there"), ({"$ref": "other.json"}, "begins with '#'"),
           ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "refers to itself"), (False, "no text satisfies"), ({"minLength": 3, "maxLength": 2}, "below"), ({"enum": []}, "not empty"),
           ({"maxItems": 100000}, "from 0 to"), ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}, "$ref": "#/$defs/a"}, "refers to itself"),
           ({"const": "a" * 300_000}, "too large"), ({"type": "object", "minProperties": 2}, "'minProperties' above 1"), ({"contains": {}}, "'contains'"), ({"type": "integer", "minimum": 5, "maximum": 4}, "below")]


@pytest.mark.parametrize("schema,text", REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_kept_is_refused_with_its_place(probe, schema, text):
    [answer] = probe([{"schema": schema}])
    assert text in answer.get("error", ""), answer


def test_compiling_is_quick(probe):
    big = {"type": "object", "properties": {f"field{i}": {"type": "string", "pattern": "^[a-z]{1,20}$"} for i in range(500)}, "additionalProperties": False}
    assert probe([{"schema": big}])[0]["seconds"] < 2


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("further", [{}, {"additionalProperties": False}])
def test_an_object_of_five_thousand_properties(probe, required, further):
    kinds = [{"type": "string", "maxLength": 3}, {"type": "integer"}, {"type": "boolean"}, {"type": "array", "items": {"type": "null"}}]

    def schema(count):
        named = {f"property_{i}": kinds[i % len(kinds)] for i in range(count)}
        return {"type": "object", "properties": named, "required": list(named) if required else [], **further}

    answers = probe([{"schema": schema(count), "samples": 1} for count in (1250, 5000)])
    for count, answer in zip((1250, 5000), answers):
        check_samples(schema(count), answer)
