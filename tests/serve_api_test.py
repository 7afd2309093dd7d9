"""What vLLM adds to OpenAI's interface: forms of answers by other names, tokenize and detokenize; and that heavy bodies are
read beside the HTTP thread.

Model: stories260K of the shared data.
"""
import json
import re
import threading
import time
import urllib.request

import jsonschema
import pytest
from serve_openai_test import MODEL, NAME, PROMPT, Server, post

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 40}, "id": {"type": "string", "pattern": "^[A-Z]{2}\\d+$", "maxLength": 6}},
          "required": ["n", "id"], "additionalProperties": False}


@pytest.fixture(scope="module")
def server(tessera, tmp_path_factory):
    template = tmp_path_factory.mktemp("chat") / "template.jinja"
    template.write_text("{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}Once{% endif %}")
    with Server(tessera, "--chat-template", template, "--quiet") as running:
        yield running


FORMS = [(dict(guided_json=SCHEMA), "json"), (dict(guided_json=json.dumps(SCHEMA)), "json"), (dict(structured_outputs={"json": SCHEMA}), "json"),
         (dict(guided_regex="(yes|no), [a-c]{3}"), "regex"), (dict(structured_outputs={"regex": "(yes|no), [a-c]{3}"}), "regex"),
         (dict(guided_choice=["red", "blue"]), "choice"), (dict(structured_outputs={"choice": ["red", "blue"]}), "choice"), (dict(structured_outputs={"json_object": True}), "object")]


@pytest.mark.parametrize("form,kind", FORMS, ids=range(len(FORMS)))
def test_forms_of_answers_by_the_names_of_vllm(server, form, kind):
    for seed in range(4):
        complete = dict(max_tokens=100, temperature=1.5, seed=seed, extra_body=form)
        chat = server.client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": PROMPT}], **complete).choices[0]
        plain = server.complete(**complete).choices[0]
        for text in (chat.message.content, plain.text):
            if kind == "json":
                jsonschema.validate(json.loads(text), SCHEMA)
            elif kind == "regex":
                assert re.fullmatch("(yes|no), [a-c]{3}", text)
            else:
                assert text in ("red", "blue") if kind == "choice" else isinstance(json.loads(text), dict)


def test_forms_that_are_not_served_are_refused(server):
    for body, text in ((dict(guided_regex="a(?=b)"), "guided_regex: regular expression at character 3"), (dict(structured_outputs={"grammar": "x"}), "structured_outputs: unrecognized request argument 'grammar'"),
                       (dict(guided_regex="a", guided_choice=["b"]), "give one of them"), (dict(structured_outputs={"json": {}, "regex": "a"}), "give one of them"), (dict(guided_regex=5), "must be a string")):
        status, answer = post(server, {"model": NAME, "prompt": PROMPT, **body})
        assert status == 400 and text in answer["error"]["message"], answer


def test_tokens_of_texts_and_texts_of_tokens(server):
    status, answer = post(server, {"prompt": PROMPT, "return_token_strs": True}, "/tokenize")
    assert status == 200 and answer["count"] == len(answer["tokens"]) == len(answer["token_strs"]) and answer["max_model_len"] == 512
    assert server.complete().usage.prompt_tokens == answer["count"]
    plain = post(server, {"model": NAME, "prompt": PROMPT, "add_special_tokens": False}, "/tokenize")[1]["tokens"]
    assert plain == answer["tokens"][1:]
    assert post(server, {"model": NAME, "tokens": plain}, "/detokenize") == (200, {"prompt": " " + PROMPT})
    chat = dict(messages=[{"role": "user", "content": PROMPT}])
    answer = post(server, {"model": NAME, **chat}, "/tokenize")[1]
    assert server.client.chat.completions.create(model=NAME, max_tokens=1, **chat).usage.prompt_tokens == answer["count"]
    assert post(server, {"model": NAME, "add_generation_prompt": False, **chat}, "/tokenize")[1]["tokens"] != answer["tokens"]


@pytest.mark.parametrize("path,body,text", [("/tokenize", {}, "one of 'prompt' and 'messages'"), ("/tokenize", {"prompt": 5}, "must be a string"), ("/tokenize", {"prompt": "a", "model": "x"}, "does not exist"),
                                            ("/detokenize", {"tokens": [5, 512]}, "below 512"), ("/detokenize", {"tokens": [-1]}, "below 512"), ("/detokenize", {}, "list of token ids"), ("/tokenize", {"promt": "a"}, "did you mean")])
def test_bad_bodies_of_tokens_are_refused(server, path, body, text):
    status, answer = post(server, body, path)
    assert status in (400, 404) and text in answer["error"]["message"], answer


def test_logprobs_of_completions_carry_bytes(server):
    values = server.complete("日本", echo=True, max_tokens=4, logprobs=1).choices[0]
    assert bytes(b for token in values.logprobs.bytes[1:] for b in token).decode(errors="replace").strip().startswith("日本")
    assert len(values.logprobs.bytes) == len(values.logprobs.tokens)


def test_heavy_bodies_do_not_hold_up_the_server(server):
    """A schema of 1 MB is read; meanwhile every other question is answered at once."""
    heavy = {"type": "object", "properties": {f"field{i}": {"enum": [f"value{i}_{k}" for k in range(20)]} for i in range(4000)}}
    data = json.dumps({"model": NAME, "prompt": PROMPT, "guided_json": heavy, "max_tokens": 5}).encode()
    assert len(data) > 1_000_000
    answers = []
    begin = time.monotonic()
    thread = threading.Thread(target=lambda: answers.append((post(server, data), time.monotonic() - begin)))
    thread.start()
    slowest = count = 0
    while thread.is_alive():
        begin_one = time.monotonic()
        urllib.request.urlopen(server.url + "/v1/models", timeout=10).read()
        slowest = max(slowest, time.monotonic() - begin_one)
        count += 1
    thread.join()
    (status, answer), seconds = answers[0]
    assert status == 400 and "too large" in answer["error"]["message"], answer
    assert count > 3 and slowest < max(0.1, seconds / 2), (slowest, seconds)
