"""Every pair of the server's features together (docs/serving.md): what a server answers with them is what a plain one answers
alone, bit for bit, streamed or whole. Pairs that cannot be are refused, which is tested too.

Model: stories260K of the shared data, and the same in int8.
"""
import itertools
import random
import re
import shutil
import subprocess

import pytest
from serve_lora_test import ALL, write_adapter
from serve_openai_test import MODEL, NAME, Server
from serving_answers import answer_of

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")

TEMPLATE = """{%- for m in messages %}{% for c in m.tool_calls %}<c>{{ c.function.name }}:{{ c.function.arguments | tojson }}</c>{% endfor %}
{{- m.content or '' }} {% endfor %}"""
FACTORS = {
    "endpoint": ["chat", "completions"], "delivery": ["whole", "stream"], "choices": ["one", "n", "best_of"], "sampling": ["greedy", "seeded", "penalties"],
    "logprobs": ["none", "logprobs", "echo"], "stop": ["no stop", "stop strings"], "form": ["text", "json_schema", "regex", "tools auto", "tools required"],
    "length": ["max_tokens", "min_tokens", "ignore_eos"], "prefix": ["cold", "prefix hit"], "prefill": ["at once", "chunked"], "guess": ["no guess", "guess", "draft"],
    "weights": ["float32", "int8"], "layout": ["tp=1", "tp=2"], "adapter": ["no adapter", "adapter"],
}
# What OpenAI's interface does not have together, and adapters over processes, which are refused at the start (serve_lora_test).
EXCLUDED = [("tp=2", "adapter"), ("chat", "best_of"), ("chat", "echo"), ("completions", "tools auto"), ("completions", "tools required"), ("stream", "best_of")]
# Answers of several candidates are what they are whatever is added; echo with tools has no endpoint, so their pairs go with the endpoints'.
FOLLOWS = [("echo", "tools auto"), ("echo", "tools required"), ("best_of", "tools auto"), ("best_of", "tools required")]


def is_possible(values):
    return not any(a in values and b in values for a, b in EXCLUDED)


def covering_cases(seed=1):
    """Few cases that hold every possible pair of values."""
    rng, names = random.Random(seed), list(FACTORS)
    left = {frozenset(((x, a), (y, b))) for x, y in itertools.combinations(names, 2) for a in FACTORS[x] for b in FACTORS[y] if is_possible({a, b}) and (a, b) not in FOLLOWS}
    order, cases = sorted(left, key=sorted), []
    while left:
        best, order = None, [pair for pair in order if pair in left]
        for _ in range(30):
            case = dict(sorted(rng.choice(order)))
            for name in rng.sample(names, len(names)):
                options = [v for v in FACTORS[name] if is_possible({*case.values(), v})]
                gain = {v: sum(frozenset(((name, v), item)) in left for item in case.items()) for v in options}
                case.setdefault(name, max(rng.sample(options, len(options)), key=gain.get)) if options else None
            if len(case) < len(names) or not is_possible(set(case.values())):
                continue
            covered = {frozenset(pair) for pair in itertools.combinations(case.items(), 2)} & left
            if best is None or len(covered) > len(best[1]):
                best = (case, covered)
        cases.append(best[0])
        left -= best[1]
    return cases


CASES = covering_cases()


def body_of(case, number):
    """The request of a case. Its prompt is nobody else's, so that it is cold."""
    text = f"{number}. Once upon a time there was a little girl named Lily. She liked to play in the park with her friend Tom."
    chat = case["endpoint"] == "chat"
    body = {"model": "tuned" if case["adapter"] == "adapter" else NAME, "seed": number, "temperature": 0 if case["sampling"] == "greedy" else 1.1, "max_tokens": 150}
    body |= {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    body |= {"one": {}, "n": {"n": 3}, "best_of": {"n": 2, "best_of": 3}}[case["choices"]]
    body |= {"presence_penalty": 0.5, "frequency_penalty": 0.3, "repetition_penalty": 1.1, "logit_bias": {"410": 1}} if case["sampling"] == "penalties" else {}
    body |= {"none": {}, "logprobs": {"logprobs": True, "top_logprobs": 2} if chat else {"logprobs": 2}, "echo": {"echo": True, "logprobs": 1}}[case["logprobs"]]
    body |= {"stop": ["mom", "ee"]} if case["stop"] == "stop strings" else {}
    body |= {"max_tokens": {}, "min_tokens": {"min_tokens": 40}, "ignore_eos": {"ignore_eos": True, "max_tokens": 60}}[case["length"]]
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 20}, "b": {"type": "integer", "minimum": 1}}, "required": ["a"]}
    tools = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}], "tool_choice": case["form"].removeprefix("tools ")}
    if case["form"] == "tools auto":
        tools["logit_bias"] = {str(3 + ord(c)): 30 for c in "<c>"}
    return body | {"text": {}, "json_schema": {"guided_json": schema}, "regex": {"guided_regex": "[A-Z][a-z ]{4,30}\\."}}.get(case["form"], tools)


@pytest.fixture(scope="module")
def start(tessera, tmp_path_factory):
    """start(weights, prefill, guess, layout) -> a server, kept for the next case with the same."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "template.jinja").write_text(TEMPLATE)
    small = folder / NAME
    subprocess.run([tessera, "checkpoint", "export", MODEL, "--to", small, "--quantize", "int8"], check=True, capture_output=True)
    shutil.copy(MODEL / "tok512.bin", small)
    tuned, _ = write_adapter(MODEL, folder / "tuned", 1, 4, 2, ALL)
    servers = {}

    def get(weights, prefill, guess, layout):
        key = (weights, prefill, guess, layout)
        if key not in servers:
            servers[key] = Server(tessera, "--chat-template", folder / "template.jinja", "--quiet", "--kv-tokens", "4096", "--max-batch-tokens", "24" if prefill == "chunked" else "512",
                                  "--guess", "0" if guess == "no guess" else "4", *(["--draft", small] if guess == "draft" else []), "--layout", layout, "--threads", "1", *([f"--adapter=tuned={tuned}"] if layout == "tp=1" else []), model=small if weights == "int8" else MODEL)
        return servers[key]

    yield get
    for server in servers.values():
        server.__exit__()


def test_cases_hold_every_pair():
    seen = {frozenset(pair) for case in CASES for pair in itertools.combinations(case.values(), 2)}
    for x, y in itertools.combinations(FACTORS, 2):
        for a, b in itertools.product(FACTORS[x], FACTORS[y]):
            assert frozenset((a, b)) in seen or not is_possible({a, b}) or (a, b) in FOLLOWS, (a, b)
    assert len(CASES) < 60


@pytest.mark.parametrize("number", range(len(CASES)))
def test_features_together_answer_what_a_plain_server_answers(start, number):
    case = CASES[number]
    path = "/v1/chat/completions" if case["endpoint"] == "chat" else "/v1/completions"
    body = body_of(case, number)
    plain = answer_of(start(case["weights"], "at once", "no guess", "tp=1"), path, body)
    assert plain[0] == 200, (case, plain)
    server = start(case["weights"], case["prefill"], case["guess"], case["layout"])
    is_hit = case["prefix"] == "prefix hit"
    if is_hit:
        answer_of(server, path, {**body, "max_tokens": 1, "min_tokens": 0})
    status, choices, usage = answer_of(server, path, body, stream=case["delivery"] == "stream")
    assert (status, choices) == plain[:2], case
    cached = usage.pop("prompt_tokens_details")["cached_tokens"]
    assert cached > 0 if is_hit and case["logprobs"] != "echo" else True, case
    plain[2].pop("prompt_tokens_details")
    assert usage == plain[2]


REFUSED = [({"endpoint": "chat", "choices": "best_of"}, "best_of"), ({"endpoint": "chat", "logprobs": "echo"}, "echo"), ({"form": "tools auto"}, "tool_choice"), ({"form": "tools required"}, "tool_choice"),
           ({"delivery": "stream", "choices": "best_of"}, "cannot be streamed")]


@pytest.mark.parametrize("values,text", REFUSED)
def test_pairs_that_cannot_be_are_refused(start, values, text):
    case = {name: options[0] for name, options in FACTORS.items()} | {"endpoint": "completions"} | values
    path = "/v1/chat/completions" if case["endpoint"] == "chat" else "/v1/completions"
    status, message = answer_of(start("float32", "at once", "no guess", "tp=1"), path, body_of(case, 1000), stream=case["delivery"] == "stream")
    assert status == 400 and text in message


def test_the_document_lists_the_same_features(root):
    page = (root / "docs/serving.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z]+) \| (.+?) \|", page, flags=re.M))
    assert {name: [v.strip() for v in rows[name].split(",")] for name in FACTORS} == FACTORS
    for a, b in EXCLUDED:
        assert f"{a} with {b}" in page, (a, b)
