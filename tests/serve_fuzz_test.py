"""Random requests with everything that the interface has: the joined stream equals the whole answer byte for byte, calls of
functions are JSON of their schema, and nothing, however torn, is answered with a 5xx.

TESSERA_FUZZ_REQUESTS=10000 makes it a soak; TESSERA_FUZZ_SEED changes it. Model: stories260K of the shared data.
"""
import http.client
import json
import os
import random
import threading

import jsonschema
import pytest
from serve_chat_test import random_body
from serve_format_test import random_schema
from serve_openai_test import MODEL, NAME, Server
from serving_answers import answer_of, request

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")
REQUESTS = int(os.environ.get("TESSERA_FUZZ_REQUESTS", "160"))
SEED = int(os.environ.get("TESSERA_FUZZ_SEED", "1"))
CLIENTS = 4
TEMPLATE = """{%- for m in messages %}{% for c in m.tool_calls %}<c>{{ c.function.name }}:{{ c.function.arguments | tojson }}</c>{% endfor %}
{{- m.content or '' }} {% endfor %}"""
TEXTS = ["Once upon a time", "Tom and Lily", "日本 🎉", "a", "The cat sat on the mat. " * 6]


@pytest.fixture(scope="module")
def server(tessera, tmp_path_factory):
    template = tmp_path_factory.mktemp("chat") / "template.jinja"
    template.write_text(TEMPLATE)
    with Server(tessera, "--chat-template", template, "--quiet", "--guess", "3", "--max-batch-tokens", "64") as running:
        yield running


def random_form(rng, chat):
    kind = rng.choice(["none"] * 4 + ["json", "regex", "choice"] + ["tools"] * (2 * chat))
    if kind == "json":
        return {"guided_json": random_schema(rng)}
    if kind == "regex":
        return {"guided_regex": rng.choice(["[a-z]{3,9}", "(ab|cd)*x", "\\d+\\.\\d\\d", "é.?"])}
    if kind == "choice":
        return {"structured_outputs": {"choice": ["yes", "no", "perhaps not"]}}
    if kind == "tools":
        schema = {"type": "object", "properties": {"a": random_schema(rng, 2), "b": {"type": "integer", "minimum": 1}}, "required": ["a"]}
        return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}], "tool_choice": rng.choice(["auto", "required", "none"])}
    return {}


def random_request(rng):
    """(path, body) that is good, or nearly so."""
    chat = rng.random() < 0.5
    body = {"model": NAME, "seed": rng.randrange(1000), "temperature": rng.choice([0, 0.7, 1, 2, 5]), "max_tokens": rng.choice([1, 5, 20, 60]), **random_form(rng, chat)}
    body |= {"messages": [{"role": "user", "content": rng.choice(TEXTS)}]} if chat else {"prompt": rng.choice([rng.choice(TEXTS), rng.sample(TEXTS, 2), [1, 403, 407, 261]])}
    for key, values in (("n", [2, 3]), ("stop", [["a"], "the ", [" t", "."]]), ("top_p", [0.5]), ("top_k", [5]), ("min_p", [0.1]), ("presence_penalty", [1]), ("frequency_penalty", [-1, 1]),
                        ("repetition_penalty", [1.3]), ("min_tokens", [3]), ("ignore_eos", [True]), ("logit_bias", [{"410": 5}, {"63": 40, "102": 40, "65": 40}]), ("user", ["me"]), ("priority", [1])):
        if rng.random() < 0.2:
            body[key] = rng.choice(values)
    if rng.random() < 0.3:
        body |= {"logprobs": True, "top_logprobs": 2} if chat else {"logprobs": 2}
    if not chat and rng.random() < 0.3:
        body["echo"] = True
    return "/v1/chat/completions" if chat else "/v1/completions", body


def check_calls(body, choices):
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in body.get("tools", [])}
    fits = body["max_tokens"] >= 60  # fewer may not be enough for the shortest call
    for choice in choices:
        for name, arguments in choice["calls"] if fits else []:
            jsonschema.validate(json.loads(arguments), schemas[name])
    return sum(len(choice["calls"]) for choice in choices)


def check_one(server, rng, connection, counts):
    if rng.random() < 0.2:
        path = rng.choice(["/v1/completions", "/v1/chat/completions"])
        status, answer = request(server, path, random_body(rng, "chat" in path), connection)
        assert status < 500, (status, answer)
        counts["bad"] += status != 200
        return
    path, body = random_request(rng)
    whole, stream = answer_of(server, path, body, False, connection), answer_of(server, path, body, True, connection)
    for answer in (whole, stream):
        if answer[0] == 200:
            answer[2].pop("prompt_tokens_details")  # the second one finds the first one's prompt in the cache
    assert whole[0] < 500, (body, whole)
    assert stream == whole, (body, stream, whole)
    counts["served"] += whole[0] == 200
    counts["calls"] += check_calls(body, whole[1]) if whole[0] == 200 else 0


def test_streams_equal_whole_answers_and_nothing_is_a_5xx(server):
    failures, counts = [], {"bad": 0, "served": 0, "calls": 0}

    def client(number):
        connection, rng = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120), random.Random(SEED * 100 + number)
        for _ in range(REQUESTS // 2 // CLIENTS):  # each is asked for twice
            if failures:
                return
            try:
                check_one(server, rng, connection, counts)
            except Exception as error:  # told by the main thread
                failures.append(error)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    if failures:
        raise failures[0]
    assert counts["served"] > REQUESTS / 5 and counts["calls"] > REQUESTS / 100 and counts["bad"] > 0, counts
    server.wait_for("num_requests_running", 0)
