"""Chat completions, sampling keys and bad requests, through the official openai client and raw HTTP.

Model: stories260K of the shared data, from $TESSERA_SHARED or ../shared beside the repository. It is no chat model, so a
template is given; what is tested is the way from a conversation to a prompt and from tokens to an answer.
"""
import json
import os
import random

import openai
import pytest
from serve_openai_test import MODEL, NAME, PROMPT, SHARED, Server, post

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")

TEMPLATE = """{%- if tools %}{{ tools|tojson }}
{% endif %}
{%- for m in messages %}
    {%- if m.role == 'tool' and loop.first %}{{ raise_exception('a tool cannot speak first') }}{% endif %}
    {{- m.content ~ mood|default('') ~ ' ' }}
{%- endfor %}
{%- if add_generation_prompt %}Once{% endif %}"""


@pytest.fixture(scope="module")
def server(tessera, tmp_path_factory):
    template = tmp_path_factory.mktemp("chat") / "template.jinja"
    template.write_text(TEMPLATE)
    with Server(tessera, "--chat-template", template, "--quiet") as running:
        yield running


def say(server, content="Tom and Lily were in the park.", **options):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    options = {"temperature": 0, "max_completion_tokens": 24, **options}
    return server.client.chat.completions.create(model=NAME, messages=messages, **options)


def test_answer_is_the_completion_of_the_rendered_prompt(server):
    """The same tokens come from echo; both ways encode the text, completions put the begin token in front."""
    answer = say(server)
    whole = server.complete("Tom and Lily were in the park. Once", max_tokens=0, echo=True, logprobs=0).choices[0]
    assert answer.usage.prompt_tokens == len(whole.logprobs.tokens) - 1
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 24


def test_stream_joins_to_the_whole_answer(server):
    whole = say(server, n=2, seed=5, temperature=1.2, logprobs=True, top_logprobs=2)
    parts = list(say(server, n=2, seed=5, temperature=1.2, logprobs=True, top_logprobs=2, stream=True,
                     stream_options={"include_usage": True}))
    assert parts[-1].usage == whole.usage
    for choice in whole.choices:
        deltas = [c for p in parts for c in p.choices if c.index == choice.index]
        assert deltas[0].delta.role == "assistant" and all(d.delta.role is None for d in deltas[1:])
        assert "".join(d.delta.content or "" for d in deltas) == choice.message.content
        assert [d.finish_reason for d in deltas if d.finish_reason] == [choice.finish_reason]
        assert [t for d in deltas if d.logprobs for t in d.logprobs.content] == choice.logprobs.content
    assert whole.choices[0].message.content != whole.choices[1].message.content


def test_bytes_of_the_logprobs_join_to_the_text(server):
    answer = say(server, logprobs=True, top_logprobs=3).choices[0]
    assert bytes(b for t in answer.logprobs.content for b in t.bytes).decode() == answer.message.content
    for token in answer.logprobs.content:
        assert len(token.top_logprobs) == 3 and token.top_logprobs[0].logprob == pytest.approx(token.logprob)


def test_stop_string_across_tokens_ends_the_answer_in_front_of_it(server):
    whole = say(server, max_completion_tokens=60).choices[0].message.content
    stop = whole[20:29]
    answer = say(server, max_completion_tokens=60, stop=[stop]).choices[0]
    assert answer.message.content == whole[: whole.index(stop)] and answer.finish_reason == "stop"


def test_roles_parts_and_variables_reach_the_template(server):
    plain = say(server, [{"role": "system", "content": "Be\nkind."}, {"role": "user", "content": "Hi."}], logprobs=True)
    parts = say(server, [{"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
                         {"role": "user", "content": "Hi."}], logprobs=True)
    assert parts.choices == plain.choices and parts.usage == plain.usage
    longer = say(server, "Hi.", extra_body={"chat_template_kwargs": {"mood": " very well indeed"}})
    assert longer.usage.prompt_tokens > say(server, "Hi.").usage.prompt_tokens
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert say(server, "Hi.", tools=[tool], tool_choice="none").usage.prompt_tokens > say(server, "Hi.").usage.prompt_tokens


def test_requests_have_ids(server):
    raw = server.client.chat.completions.with_raw_response.create(
        model=NAME, messages=[{"role": "user", "content": "a"}], max_tokens=1)
    assert raw.parse().id == "chatcmpl-" + raw.headers["x-request-id"]


def test_model_without_a_template_says_so(tessera):
    with Server(tessera, "--quiet") as plain, pytest.raises(openai.BadRequestError, match="--chat-template"):
        say(plain)


def test_template_that_cannot_be_run_is_named_at_the_start_and_completions_go_on(tessera, tmp_path):
    bad = tmp_path / "bad.jinja"
    bad.write_text("x\n{% include 'y' %}")
    with Server(tessera, "--chat-template", bad, "--quiet") as own:
        with pytest.raises(openai.BadRequestError, match="line 2: the tag 'include' is not supported"):
            say(own)
        assert own.text(max_tokens=3)
        own.process.kill()
        assert "line 2" in own.process.stderr.read()


def test_sampling_keys_change_what_they_say(server):
    greedy = server.complete(max_tokens=8, logprobs=1).choices[0]
    assert server.text(max_tokens=8, logit_bias={"410": 100}) != greedy.text
    assert len(set(server.complete(max_tokens=8, logprobs=0, logit_bias={"410": 100}).choices[0].logprobs.tokens)) == 1
    banned = server.complete(max_tokens=40, logprobs=0, presence_penalty=2, frequency_penalty=2).choices[0].logprobs.tokens
    plain = server.complete(max_tokens=40, logprobs=0).choices[0].logprobs.tokens
    assert len(set(banned)) > len(set(plain))
    assert server.text(max_tokens=40, extra_body={"repetition_penalty": 1.5}) != server.text(max_tokens=40)
    assert server.text(temperature=1, seed=1, extra_body={"min_p": 1}) == server.text()
    assert server.text(extra_body={"min_tokens": 5, "priority": 3}, user="me") == server.text()


def test_best_of_answers_the_likeliest(server):
    options = dict(max_tokens=12, temperature=1.3, seed=9, logprobs=0)
    candidates = server.complete(n=5, **options).choices
    mean = lambda c: sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs)
    best = sorted(candidates, key=mean, reverse=True)[:2]
    answer = server.complete(n=2, best_of=5, **options)
    assert [c.text for c in answer.choices] == [c.text for c in best]
    assert answer.usage.completion_tokens == sum(len(c.logprobs.tokens) for c in candidates)


CHAT = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
BAD_CHATS = [
    ({"model": NAME}, "messages"), ({**CHAT, "messages": []}, "not empty"), ({**CHAT, "messages": "hi"}, "messages"),
    ({**CHAT, "messages": [1]}, "messages[0] needs a role"), ({**CHAT, "messages": [{"role": "user"}]}, "needs a content"),
    ({**CHAT, "messages": [{"role": "king", "content": "x"}]}, "not 'king'"),
    ({**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not 'image_url'"),
    ({**CHAT, "messages": [{"role": "tool", "content": "x"}]}, "a tool cannot speak first"),
    ({**CHAT, "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "arguments of 'f'"),
    ({**CHAT, "max_completion_tokens": 3}, "differ"), ({**CHAT, "top_logprobs": 2}, "needs 'logprobs'"),
    ({**CHAT, "tools": [{}], "tool_choice": "required"}, "tools[0].type"), ({**CHAT, "response_format": {"type": "xml"}}, "json_schema, not"),
    ({**CHAT, "promt": 1, "messages": 3}, "'promt'"), ({**CHAT, "temprature": 1}, "did you mean 'temperature'"),
    ({**CHAT, "stream_options": {"include_usge": True}}, "did you mean 'include_usage'"),
    ({**CHAT, "logit_bias": {"x": 1}}, "logit_bias"), ({**CHAT, "logit_bias": {"5": 101}}, "-100 to 100"),
    ({**CHAT, "logit_bias": {"100000": 1}}, "vocabulary"), ({**CHAT, "chat_template_kwargs": 5}, "chat_template_kwargs"),
]


@pytest.mark.parametrize("body,text", BAD_CHATS)
def test_bad_chats_are_refused_with_a_readable_error(server, body, text):
    status, answer = post(server, body, "/v1/chat/completions")
    assert status == 400 and text in answer["error"]["message"], answer


def test_unknown_key_is_told_before_what_it_made_missing(server):
    status, answer = post(server, {"model": NAME, "promt": PROMPT})
    assert status == 400 and "'promt'; did you mean 'prompt'" in answer["error"]["message"]


def test_deep_nesting_is_refused_and_no_crash(server):
    for path in ("/v1/completions", "/v1/chat/completions"):
        deep = b'{"model": "stories260K", "temperature": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"
        status, answer = post(server, deep, path)
        assert status == 400 and "nested deeper" in answer["error"]["message"]


def random_value(rng, depth=0):
    return rng.choice([lambda: rng.choice([0, 1, -1, 2, 1.5, 1e300, 2**63, 2**64 + 1, -2**63]), lambda: rng.choice(["", "a", "auto", "none", "\ud800", "é" * 60, "\x00"]),
                       lambda: rng.choice([True, False, None]), lambda: [random_value(rng, depth + 1) for _ in range(rng.randrange(3))] if depth < 4 else 1,
                       lambda: {rng.choice(["type", "role", "content", "text", "7"]): random_value(rng, depth + 1) for _ in range(rng.randrange(3))} if depth < 4 else 2])()


KEYS = ["model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "n", "best_of", "stop", "stream",
        "stream_options", "logprobs", "top_logprobs", "echo", "logit_bias", "presence_penalty", "frequency_penalty", "repetition_penalty", "min_tokens", "ignore_eos",
        "priority", "user", "tools", "tool_choice", "response_format", "chat_template_kwargs", "suffix", "metadata", "guided_json", "guided_choice", "nonsense"]


def random_body(rng, chat):
    body = dict(CHAT) if chat else {"model": NAME, "prompt": PROMPT, "max_tokens": 2}
    for _ in range(rng.randrange(4)):
        body[rng.choice(KEYS)] = random_value(rng)
    if rng.random() < 0.2:
        body.pop(rng.choice(list(body)))
    body.pop("n", None) if isinstance(body.get("n"), int) and body["n"] > 4 else None
    data = json.dumps(body).encode()
    if rng.random() < 0.2:  # torn or flipped bytes
        at = rng.randrange(len(data))
        data = data[:at] + (b"" if rng.random() < 0.5 else bytes([rng.randrange(256)]) + data[at + 1:])
    return data


def test_random_requests_get_an_answer_or_a_clear_refusal(server):
    rng = random.Random(int(os.environ.get("TESSERA_FUZZ_SEED", "1")))
    served = 0
    for i in range(int(os.environ.get("TESSERA_FUZZ_REQUESTS", "400"))):
        body, path = random_body(rng, i % 2), ["/v1/completions", "/v1/chat/completions"][i % 2]
        if b'"stream": true' in body:
            continue
        status, answer = post(server, body, path)
        assert status in (200, 400, 404), (status, body, answer)
        assert status == 200 or len(answer["error"]["message"]) > 10, (body, answer)
        served += status == 200
    assert served > 20
    assert server.text(max_tokens=2)


def test_random_streams_equal_the_whole_answers(server):
    rng = random.Random(2)
    for seed in range(int(os.environ.get("TESSERA_FUZZ_STREAMS", "25"))):
        options = dict(seed=seed, temperature=rng.choice([0, 0.7, 1.5, 5]), max_completion_tokens=rng.randrange(1, 40), n=rng.randrange(1, 4),
                       stop=rng.choice([None, ["a"], ["the ", "."], [" t"]]), presence_penalty=rng.choice([0, 1]))
        whole = say(server, PROMPT, **options)
        texts, reasons = [""] * options["n"], [None] * options["n"]
        for part in say(server, PROMPT, stream=True, **options):
            for choice in part.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        assert texts == [c.message.content for c in whole.choices]
        assert reasons == [c.finish_reason for c in whole.choices]
