"""Answers of a given form: random JSON schemas and choices against the engine's grammar. Whatever the model would say, the
answer parses and satisfies the schema (checked by Python's jsonschema), also when max_tokens end it.

Model: stories260K of the shared data, at temperatures where its text is nearly random.
"""
import json
import os
import random

import jsonschema
import pytest
from serve_openai_test import MODEL, NAME, PROMPT, Server, post

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")


@pytest.fixture(scope="module")
def server(tessera, tmp_path_factory):
    template = tmp_path_factory.mktemp("chat") / "template.jinja"
    template.write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    with Server(tessera, "--chat-template", template, "--quiet") as running:
        yield running


def random_schema(rng, depth=0):
    kind = rng.choice(["string", "integer", "number", "boolean", "null", "enum", "const", "several"] + (["object", "object", "array", "anyOf", "any"] if depth < 3 else []))
    if kind == "enum":
        return {"enum": rng.sample(["a", "b c", 'q"', "é", 1, 2.5, None, True, [1, "x"], {"k": 1}], rng.randrange(1, 4))}
    if kind == "const":
        return {"const": rng.choice(["yes", 7, None, "日本\n"])}
    if kind == "several":
        return {"type": rng.sample(["string", "integer", "null", "boolean"], 2)}
    if kind == "any":
        return rng.choice([True, {}])
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randrange(1, 4))]}
    if kind == "string":
        low = rng.randrange(4)
        return {"type": "string", **rng.choice([{}, {"maxLength": low + 3}, {"minLength": low}, {"minLength": low, "maxLength": low}])}
    if kind == "array":
        low = rng.randrange(3)
        return {"type": "array", **rng.choice([{}, {"items": random_schema(rng, depth + 1)}]), **rng.choice([{}, {"minItems": low}, {"minItems": low, "maxItems": low + 2}])}
    if kind == "object":
        names = rng.sample(["name", "age", "a b", 'quo"te', "é", "tags", "next"], rng.randrange(4))
        out = {"type": "object", "properties": {n: random_schema(rng, depth + 1) for n in names}, "required": rng.sample(names, rng.randrange(len(names) + 1))}
        if rng.random() < 0.5:
            out["additionalProperties"] = rng.choice([False, True, {"type": "integer"}])
        if rng.random() < 0.3:
            del out["properties"], out["required"]
        return out
    return {"type": kind}


def ask(server, path, **options):
    body = {"model": NAME, "temperature": 1, **options}
    body |= {"messages": [{"role": "user", "content": PROMPT}]} if "chat" in path else {"prompt": PROMPT}
    return post(server, body, path)


def test_answers_satisfy_random_schemas_whatever_the_model_would_say(server):
    rng = random.Random(int(os.environ.get("TESSERA_FUZZ_SEED", "1")))
    cut = 0
    for seed in range(int(os.environ.get("TESSERA_FUZZ_SCHEMAS", "60"))):
        schema = random_schema(rng)
        form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        options = dict(seed=seed, temperature=rng.choice([0, 1, 3]), max_tokens=rng.choice([150, 300]), n=2)
        chats = rng.random() < 0.5
        status, answer = (ask(server, "/v1/chat/completions", response_format=form, **options) if chats else
                          ask(server, "/v1/completions", guided_json=schema, **options))
        assert status == 200, (schema, answer)
        for choice in answer["choices"]:
            text = choice["message"]["content"] if chats else choice["text"]
            try:
                jsonschema.validate(json.loads(text), schema)
            except Exception as error:
                raise AssertionError(f"{schema}: {text!r} ({choice['finish_reason']}): {error}") from error
            assert choice["finish_reason"] in ("stop", "length")
            cut += choice["finish_reason"] == "length"
    assert cut > 0  # some were brought to their end by max_tokens


def test_recursive_schema_and_any_object(server):
    tree = {"$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                               "required": ["value", "children"], "additionalProperties": False}}, "$ref": "#/$defs/node"}
    for seed in range(5):
        status, answer = ask(server, "/v1/completions", guided_json=tree, max_tokens=200, seed=seed)
        assert status == 200, answer
        jsonschema.validate(json.loads(answer["choices"][0]["text"]), tree)
        status, answer = ask(server, "/v1/chat/completions", response_format={"type": "json_object"}, max_tokens=100, seed=seed, temperature=2)
        assert status == 200 and isinstance(json.loads(answer["choices"][0]["message"]["content"]), dict)


def test_properties_come_in_the_schemas_order(server):
    schema = {"type": "object", "properties": {"z": {"type": "boolean"}, "a": {"type": "null"}}, "required": ["a", "z"]}
    _, answer = ask(server, "/v1/completions", guided_json=schema, max_tokens=60)
    assert list(json.loads(answer["choices"][0]["text"])) == ["z", "a"]


def test_choices_are_answered_literally(server):
    choices = ["yes", "no", "yes and no", "日本"]
    seen = set()
    for seed in range(12):
        status, answer = ask(server, "/v1/completions", guided_choice=choices, seed=seed, temperature=2)
        assert status == 200 and answer["choices"][0]["finish_reason"] == "stop"
        seen.add(answer["choices"][0]["text"])
    assert seen <= set(choices) and len(seen) > 1


def test_too_few_tokens_cut_and_say_length(server):
    schema = {"type": "object", "properties": {"a long name of a property": {"type": "string"}}, "required": ["a long name of a property"]}
    _, answer = ask(server, "/v1/completions", guided_json=schema, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length" and answer["choices"][0]["text"].startswith("{")


def test_stream_equals_the_whole_answer(server):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"]}}}
    options = dict(model=NAME, messages=[{"role": "user", "content": PROMPT}], response_format=form, seed=4, temperature=1, max_tokens=60)
    whole = server.client.chat.completions.create(**options).choices[0].message.content
    assert "".join(c.delta.content or "" for p in server.client.chat.completions.create(stream=True, **options) for c in p.choices) == whole
    assert set(json.loads(whole)) == {"s"}


BAD = [({"type": "object", "properties": {"a": {"not": {}}}}, "#/properties/a: 'not' is not supported"), (False, "no text satisfies"), (5, "must be an object"),
       ({"pattern": "(a"}, "regular expression at character 2"), ("{", "JSON")]


@pytest.mark.parametrize("schema,text", BAD)
def test_schema_that_is_not_kept_is_refused_with_its_place(server, schema, text):
    status, answer = ask(server, "/v1/completions", guided_json=schema, max_tokens=20)
    assert status == 400 and text in answer["error"]["message"], answer


def test_random_schemas_of_any_kind_are_no_crash(server):
    rng = random.Random(3)
    words = ["type", "properties", "items", "enum", "const", "anyOf", "allOf", "$ref", "required", "minItems", "maxItems", "minLength", "maxLength", "additionalProperties", "x"]

    def junk(depth=0):
        return rng.choice([lambda: {rng.choice(words): junk(depth + 1) for _ in range(rng.randrange(3))} if depth < 4 else "string",
                           lambda: [junk(depth + 1) for _ in range(rng.randrange(3))] if depth < 4 else 1,
                           lambda: rng.choice(["object", "string", "integer", "array", "#", "#/items", 3, -1, True, None, 1e9])])()

    for _ in range(150):
        status, answer = ask(server, "/v1/completions", guided_json=junk() or True, max_tokens=8)
        assert status in (200, 400), answer
