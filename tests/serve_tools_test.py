"""Calls of functions through the official openai client: whatever the model would say, what comes back as a call is JSON of
the function's schema (checked by Python's jsonschema), streamed and whole.

Model: stories260K of the shared data, whose text is nearly random here; templates: those of published models.
"""
import json
import os
import random

import jsonschema
import openai
import pytest
from serve_format_test import random_schema
from serve_openai_test import MODEL, NAME, SHARED, Server, post

TEMPLATES = SHARED / "data/chat_templates"
pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")

# Calls are <c>NAME:ARGUMENTS</c>: of three characters a random model writes <c> soon.
SHORT = """{%- for m in messages %}{% for c in m.tool_calls %}<c>{{ c.function.name }}:{{ c.function.arguments | tojson }}</c>{% endfor %}
{{- m.content or '' }}!{% endfor %}"""
MARK = {str(3 + ord(c)): 60 for c in "<c>"}  # stories260K has each byte as a token behind three special ones


@pytest.fixture(scope="module")
def server(tessera, tmp_path_factory):
    template = tmp_path_factory.mktemp("chat") / "template.jinja"
    template.write_text(SHORT)
    with Server(tessera, "--chat-template", template, "--quiet", "--guess", "4") as running:
        yield running


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """The same weights with room for long prompts, and with the names of the special tokens that templates ask for."""
    folder = tmp_path_factory.mktemp("long") / NAME
    folder.mkdir()
    for file in ("model.safetensors", "tok512.bin"):
        (folder / file).symlink_to(MODEL / file)
    (folder / "config.json").write_text(json.dumps({**json.loads((MODEL / "config.json").read_text()), "max_position_embeddings": 4096}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return folder


def function(name, parameters):
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


def random_tools(rng):
    tools = []
    for name in rng.sample(["get", "get_weather", "set-state", "f", "math.add"], rng.randrange(1, 4)):
        schema = random_schema(rng)
        while schema.get("type") != "object" if isinstance(schema, dict) else True:
            schema = random_schema(rng)
        tools.append(function(name, schema))
    return tools


def say(server, content="Once", **options):
    options = {"messages": [{"role": "user", "content": content}], "max_tokens": 300, "temperature": 1, **options}
    return server.client.chat.completions.create(model=NAME, **options)


def streamed(server, n=1, **options):
    """Choices as the whole answer has them: (content, [(name, arguments)], reason)."""
    content, calls, reasons = [None] * n, [{} for _ in range(n)], [None] * n
    for part in say(server, n=n, stream=True, **options):
        for choice in part.choices:
            i, delta = choice.index, choice.delta
            content[i] = (content[i] or "") + delta.content if delta.content else content[i]
            for call in delta.tool_calls or []:
                if call.index not in calls[i]:
                    assert call.id and len(call.id) == 9 and call.type == "function" and call.function.name
                    calls[i][call.index] = [call.function.name, ""]
                else:
                    assert call.id is None and call.function.name is None
                calls[i][call.index][1] += call.function.arguments
            reasons[i] = choice.finish_reason or reasons[i]
    return [(content[i], [tuple(calls[i][k]) for k in sorted(calls[i])], reasons[i]) for i in range(n)]


def whole(server, **options):
    out = []
    for choice in say(server, **options).choices:
        calls = choice.message.tool_calls or []
        assert len({c.id for c in calls}) == len(calls)
        out.append((choice.message.content or None, [(c.function.name, c.function.arguments) for c in calls], choice.finish_reason))
    return out


def check_calls(calls, tools, where):
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
    for name, arguments in calls:
        try:
            jsonschema.validate(json.loads(arguments), schemas[name])
        except Exception as error:
            raise AssertionError(f"{where}: {name} {schemas.get(name)}: {arguments!r}: {error}") from error


def test_calls_satisfy_random_schemas_streamed_and_whole(server):
    rng = random.Random(int(os.environ.get("TESSERA_FUZZ_SEED", "1")))
    made = texts = 0
    for seed in range(int(os.environ.get("TESSERA_FUZZ_TOOLS", "40"))):
        tools, choice = random_tools(rng), rng.choice(["auto", "auto", "required", "named"])
        named = {"type": "function", "function": {"name": tools[0]["function"]["name"]}}
        options = dict(tools=tools, tool_choice=named if choice == "named" else choice, seed=seed, temperature=rng.choice([0.5, 1, 2]),
                       logit_bias=MARK if choice == "auto" else {}, stop=rng.choice([None, ["e", "}"]]) if choice == "required" else None)
        answers = whole(server, n=2, **options)
        assert streamed(server, n=2, **options) == answers
        for content, calls, reason in answers:
            check_calls(calls, tools, seed)
            made += len(calls)
            if choice == "auto":
                texts += content is not None
                assert reason == ("tool_calls" if calls and reason != "length" else reason)
            else:
                assert calls and content is None
                assert reason in (("stop", "length") if choice == "named" else ("tool_calls", "length"))
            if choice == "named":
                assert [name for name, _ in calls] == [tools[0]["function"]["name"]]
    assert made > 60 and texts > 5


@pytest.mark.parametrize("name", sorted(p.stem for p in TEMPLATES.glob("*.jinja")))
def test_published_templates_make_and_take_back_calls(tessera, long_model, name):
    tools = [function("get_weather", {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5, "description": "c"}, "days": {"type": "integer", "description": "n"}},
                                      "required": ["city"]}), function("stop", {"type": "object", "properties": {}, "additionalProperties": False})]
    with Server(tessera, "--chat-template", TEMPLATES / f"{name}.jinja", "--quiet", model=long_model) as server:
        if name.startswith("microsoft-Phi"):
            with pytest.raises(openai.BadRequestError, match="does not write tool calls"):
                say(server, tools=tools)
            return
        for options in (dict(tool_choice="required"), dict(tool_choice="required", parallel_tool_calls=False),
                        dict(tool_choice={"type": "function", "function": {"name": "stop"}})):
            answers = whole(server, tools=tools, seed=3, n=2, **options)
            assert streamed(server, tools=tools, seed=3, n=2, **options) == answers
            for content, calls, _ in answers:
                check_calls(calls, tools, name)
                assert calls and content is None
                assert len(calls) == 1 or "parallel_tool_calls" not in options
                assert options["tool_choice"] == "required" or [(n, json.loads(a)) for n, a in calls] == [("stop", {})]
        assert whole(server, tools=tools, seed=3) == streamed(server, tools=tools, seed=3)
        message = say(server, tools=tools, seed=3, tool_choice="required", parallel_tool_calls=False).choices[0].message
        history = [{"role": "user", "content": "Once"}, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "warm"}]
        answer = say(server, messages=history, tools=tools, tool_choice="none")
        before = say(server, messages=history[:1], tools=tools, tool_choice="none")
        assert answer.usage.prompt_tokens > before.usage.prompt_tokens and answer.choices[0].message.tool_calls is None


def test_text_in_front_of_a_call_and_stop_strings_in_it(server):
    """Stop strings end text, and never cut a call."""
    tools = [function("f", {"type": "object", "properties": {"s": {"type": "string", "minLength": 20, "maxLength": 30}}, "required": ["s"]})]
    seen = set()
    for seed in range(30):
        options = dict(tools=tools, seed=seed, logit_bias=MARK, stop=["cc", "\""])
        [(content, calls, reason)] = whole(server, **options)
        assert streamed(server, **options) == [(content, calls, reason)]
        assert "cc" not in (content or "")
        check_calls(calls, tools, seed)
        seen.add((bool(content), bool(calls)))
    assert {(True, True), (True, False)} <= seen


def test_json_or_calls(server):
    tools = [function("f", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})]
    schema = {"type": "object", "properties": {"s": {"type": "string", "maxLength": 9}}, "required": ["s"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    kinds = set()
    for seed in range(16):
        bias = MARK if seed % 2 else {str(3 + ord("{")): 60}
        [(content, calls, _)] = whole(server, tools=tools, response_format=form, seed=seed, logit_bias=bias, temperature=0.5)
        check_calls(calls, tools, seed)
        jsonschema.validate(json.loads(content), schema) if content else None
        kinds.add((content is not None, bool(calls)))
    assert kinds == {(True, False), (False, True)}


def test_only_allowed_tools_are_called(server):
    tools = [function(name, {"type": "object", "additionalProperties": False}) for name in ("a", "b", "c")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "b"}}]}}
    for seed in range(5):
        [(_, calls, _)] = whole(server, tools=tools, tool_choice=choice, seed=seed, max_tokens=60)
        assert {name for name, _ in calls} == {"b"}


TOOL = function("f", {"type": "object"})
BAD = [
    (dict(tools=[{}]), "tools[0].type"), (dict(tools=[{"type": "function"}]), "tools[0].function.name"), (dict(tools=5), "must be a list"),
    (dict(tools=[function("a b", {})]), "letters, digits"), (dict(tools=[TOOL, TOOL]), "same name 'f'"), (dict(tools=[{"type": "custom", "custom": {"name": "x"}}]), "other kinds"),
    (dict(tools=[function("f", {"type": "string"})]), "type object"), (dict(tools=[function("f", 5)]), "must be a JSON schema"),
    (dict(tools=[function("f", {"type": "object", "properties": {"x": {"not": {}}}})]), "tools[0], the parameters of 'f': JSON schema at #/properties/x: 'not'"),
    (dict(tools=[TOOL], tool_choice="sometimes"), "must be none, auto, required"), (dict(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}), "names 'g'"),
    (dict(tool_choice="required"), "needs 'tools'"), (dict(tools=[TOOL], guided_choice=["a"]), "cannot go with 'tools'"),
    (dict(tools=[TOOL], tool_choice={"type": "allowed_tools"}), "needs a mode"),
]


@pytest.mark.parametrize("options,text", BAD)
def test_bad_tools_are_refused_with_their_place(server, options, text):
    status, answer = post(server, {"model": NAME, "messages": [{"role": "user", "content": "a"}], **options}, "/v1/chat/completions")
    assert status == 400 and text in answer["error"]["message"], answer
