"""The server through the official openai client: answers, streams, limits, cancellation, metrics, signals.

Model: stories260K of the shared data, from $TESSERA_SHARED or ../shared beside the repository.
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("TESSERA_SHARED", ROOT.parent / "shared"))
MODEL = SHARED / "data/models/stories260K"
NAME = "stories260K"
PROMPT = "Once upon a time"

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")


class Server:
    """`tessera serve` on a free port, until the end of the `with`."""

    def __init__(self, tessera, *arguments, model=MODEL):
        self.name = getattr(model, "name", None)
        self.process = subprocess.Popen([tessera, "serve", "--model", model, "--port", "0", *arguments],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line = self.read_line()
        found = re.search(r"https?://127\.0\.0\.1:(\d+)", self.line)
        assert found, self.line + self.process.stderr.read()
        self.port = int(found.group(1))
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=60)

    def read_line(self):
        """What the server says when it is ready."""
        return self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def complete(self, prompt=PROMPT, **options):
        options = {"max_tokens": 16, "temperature": 0, **options}
        return self.client.completions.create(model=self.name, prompt=prompt, **options)

    def text(self, prompt=PROMPT, **options):
        return self.complete(prompt, **options).choices[0].text

    def metrics(self):
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
            return {(s.name, s.labels.get("finished_reason")): s.value for f in families for s in f.samples
                    if "le" not in s.labels}

    def metric(self, name):
        return self.metrics()[("vllm:" + name, None)]

    def wait_for(self, name, value, seconds=5):
        deadline = time.monotonic() + seconds
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}, after {seconds} s"
            time.sleep(0.01)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def server(tessera):
    with Server(tessera) as running:
        yield running


@pytest.fixture(scope="module")
def golden():
    return json.loads((MODEL / "golden.json").read_text())


def test_greedy_text_equals_the_reference(server, golden):
    ids = golden["greedy_from_bos_ids"]
    answer = server.complete(ids[:1], max_tokens=len(ids) - 1)
    assert answer.choices[0].text == golden["greedy_from_bos_text"]
    assert answer.usage.prompt_tokens == 1 and answer.usage.completion_tokens == len(ids) - 1


def test_prompt_logprobs_equal_the_reference(server, golden):
    values = server.complete(golden["prompt"], max_tokens=0, echo=True, logprobs=0).choices[0].logprobs
    assert values.token_logprobs[1:] == pytest.approx(golden["prompt_token_logprobs"], abs=1e-4)


def test_stream_joins_to_the_whole_answer_and_ends_with_usage(server):
    whole = server.complete(max_tokens=40)
    parts = list(server.complete(max_tokens=40, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].text for p in parts if p.choices) == whole.choices[0].text
    assert parts[-1].usage == whole.usage and parts[-1].choices == []
    assert [p.choices[0].finish_reason for p in parts if p.choices][-1] == "length"
    assert len(parts) > 3


def test_stop_string_across_tokens_ends_the_text_in_front_of_it(server):
    whole = server.text(max_tokens=60)
    for stop in (whole[7:12], whole[20:29]):
        answer = server.complete(max_tokens=60, stop=[stop, "never in there"]).choices[0]
        assert answer.text == whole[: whole.index(stop)]
        assert answer.finish_reason == "stop"
        streamed = "".join(p.choices[0].text for p in server.complete(max_tokens=60, stop=stop, stream=True))
        assert streamed == answer.text


def test_seed_repeats_an_answer_and_another_seed_changes_it(server):
    first = server.text(temperature=1.5, seed=7, max_tokens=40)
    assert server.text(temperature=1.5, seed=7, max_tokens=40) == first
    assert server.text(temperature=1.5, seed=8, max_tokens=40) != first
    choices = server.complete(temperature=1.5, seed=7, max_tokens=40, n=3).choices
    assert choices[0].text == first and len({c.text for c in choices}) == 3


def test_top_p_near_zero_is_greedy(server):
    assert server.text(temperature=1, top_p=1e-6, seed=1) == server.text()


def test_several_prompts_and_token_ids(server, golden):
    texts = [PROMPT, "The cat", "Tom and"]
    answers = server.complete(texts).choices
    assert [c.index for c in answers] == [0, 1, 2]
    assert [c.text for c in answers] == [server.text(text) for text in texts]
    assert server.text(golden["prompt_ids"]) == server.text(golden["prompt"])


def test_tokens_are_the_same_alone_and_among_eight_others(tessera):
    """Few tokens a step and few KV tokens: prompts come in chunks and requests lose their blocks for a while."""
    jobs = [dict(prompt=PROMPT + " there was a" * i, max_tokens=100, temperature=0.9 * (i % 2), seed=i) for i in range(9)]
    with Server(tessera, "--max-batch-tokens", "24", "--kv-tokens", "512", "--quiet") as small:
        alone = [small.text(**job) for job in jobs]
        with ThreadPoolExecutor(9) as pool:
            together = list(pool.map(lambda job: small.text(**job), jobs))
        assert together == alone
        # Clients may come so far apart that nobody is preempted; nine prompts of one request never do.
        greedy = jobs[::2] * 2
        at_once = small.complete([job["prompt"] for job in greedy], max_tokens=100).choices
        assert [choice.text for choice in at_once] == alone[::2] * 2
        assert small.metric("num_preemptions_total") > 0
        small.wait_for("kv_cache_usage_perc", 0)


def test_logprobs_belong_to_the_tokens_and_echo_gives_the_prompts(server):
    answer = server.complete(max_tokens=5, logprobs=2, echo=True).choices[0]
    values = answer.logprobs
    assert answer.text.startswith(PROMPT)
    assert values.token_logprobs[0] is None and all(v <= 0 for v in values.token_logprobs[1:])
    greedy = values.tokens[-5:]
    assert "".join(greedy) == answer.text[len(PROMPT):]
    for token, logprob, top in zip(greedy, values.token_logprobs[-5:], values.top_logprobs[-5:]):
        assert len(top) == 2 and max(top.values()) == pytest.approx(logprob) == top[token]
    scored = server.complete(answer.text, max_tokens=0, logprobs=0, echo=True).choices[0].logprobs
    assert scored.token_logprobs[1:] == pytest.approx(values.token_logprobs[1:], abs=1e-6)


def test_client_that_leaves_frees_its_blocks(server):
    stream = server.complete(max_tokens=480, stream=True)
    next(iter(stream))
    assert server.metric("num_requests_running") == 1
    stream.close()
    server.wait_for("num_requests_running", 0, seconds=2)
    assert server.metric("kv_cache_usage_perc") == 0
    assert server.metrics()[("vllm:request_success_total", "abort")] >= 1


def test_client_that_leaves_a_whole_answer_frees_its_blocks(tessera):
    with Server(tessera) as own:
        body = json.dumps({"model": NAME, "prompt": PROMPT, "max_tokens": 500, "ignore_eos": True, "n": 20})
        with socket.create_connection(("127.0.0.1", own.port)) as connection:
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            own.wait_for("num_requests_running", 20)
        own.wait_for("num_requests_running", 0, seconds=2)
        assert own.metric("kv_cache_usage_perc") == 0


def test_metrics_count_what_was_served(server):
    before = server.metrics()
    server.complete(max_tokens=10)
    after = server.metrics()

    def grown(name, reason=None):
        return after[(name, reason)] - before[(name, reason)]

    assert grown("vllm:generation_tokens_total") == 10
    assert grown("vllm:prompt_tokens_total") == 5
    assert grown("vllm:request_success_total", "length") == 1
    assert grown("vllm:time_to_first_token_seconds_count") == 1
    assert grown("vllm:time_per_output_token_seconds_count") == 9
    assert grown("vllm:e2e_request_latency_seconds_count") == 1
    assert 0 < grown("vllm:e2e_request_latency_seconds_sum") < 10


def post(server, body, path="/v1/completions"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, data), timeout=20) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


GOOD = {"model": NAME, "prompt": PROMPT}
BAD_INPUTS = [
    (b"{\"model\": ", 400, "JSON"),
    (b"[1, 2]", 400, "object"),
    (b"\xff\xfe", 400, "JSON"),
    ({"prompt": PROMPT}, 400, "model"),
    ({"model": "gpt-4", "prompt": PROMPT}, 404, "stories260K"),
    ({"model": NAME}, 400, "prompt"),
    ({**GOOD, "prompt": []}, 400, "prompt"),
    ({**GOOD, "prompt": [1, "a"]}, 400, "prompt"),
    ({**GOOD, "prompt": [1, 512]}, 400, "512 tokens"),
    ({**GOOD, "prompt": "word " * 600}, 400, "maximum context length is 512"),
    ({**GOOD, "max_tokens": 512}, 400, "maximum context length is 512"),
    ({**GOOD, "max_tokens": -1}, 400, "max_tokens"),
    ({**GOOD, "max_tokens": 1.5}, 400, "max_tokens"),
    ({**GOOD, "max_tokens": 0}, 400, "echo"),
    ({**GOOD, "temperature": -1}, 400, "temperature"),
    ({**GOOD, "temperature": "hot"}, 400, "temperature"),
    ({**GOOD, "top_p": 0}, 400, "top_p"),
    ({**GOOD, "n": 0}, 400, "n"),
    ({**GOOD, "stop": [""]}, 400, "stop"),
    ({**GOOD, "stop": 5}, 400, "stop"),
    ({**GOOD, "stream": "yes"}, 400, "stream"),
    ({**GOOD, "stream_options": {"include_usage": 1}}, 400, "include_usage"),
    ({**GOOD, "suffix": "end"}, 400, "suffix"),
    ({**GOOD, "temprature": 1}, 400, "did you mean 'temperature'"),
]


@pytest.mark.parametrize("body,status,text", BAD_INPUTS)
def test_bad_input_is_refused_with_a_readable_error(server, body, status, text):
    got, answer = post(server, body)
    assert got == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert text in answer["error"]["message"]


def test_client_raises_its_own_error_types(server):
    with pytest.raises(openai.NotFoundError):
        server.client.completions.create(model="other", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError):
        server.complete(max_tokens=10_000)
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("other")


def test_models_and_health(server):
    assert [m.id for m in server.client.models.list()] == [NAME]
    assert server.client.models.retrieve(NAME).owned_by == "tessera"
    with urllib.request.urlopen(server.url + "/health", timeout=5) as response:
        assert response.status == 200


def raw(server, text):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_no_http_or_no_route_gets_an_answer(server):
    assert raw(server, b"hello there\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert post(server, {}, "/v1/nothing")[0] in (404, 405)
    assert post(server, {}, "/health")[0] == 405
    assert raw(server, b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_full_queue_is_refused_with_retry_after(tessera):
    with Server(tessera, "--max-running", "1", "--max-waiting", "2") as small:
        body = {**GOOD, "max_tokens": 400, "ignore_eos": True}
        with pytest.raises(openai.RateLimitError) as refused:
            small.complete(n=3, max_tokens=5)
        assert refused.value.response.headers["retry-after"] == "1"
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: post(small, body)[0], range(8)))
        assert 429 in statuses and 200 in statuses and set(statuses) == {200, 429}


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(tessera):
    with Server(tessera) as own:
        whole = own.text(max_tokens=400)
        stream = own.complete(max_tokens=400, stream=True)
        text = next(iter(stream)).choices[0].text
        own.terminate()
        time.sleep(0.05)
        own.complete()  # who could not know yet is served
        time.sleep(0.7)
        with pytest.raises(openai.APIConnectionError):
            own.complete()
        assert text + "".join(p.choices[0].text for p in stream) == whole
        assert own.process.wait(10) == 0
        assert "drained" in own.process.stdout.read()


def test_idle_server_ends_at_once_on_sigterm(tessera):
    with Server(tessera) as own:
        own.text(max_tokens=2)
        own.terminate()
        assert own.process.wait(3) == 0


def test_port_in_use_is_one_readable_error(server, run_tessera):
    result = run_tessera("serve", "--model", MODEL, "--port", server.port, timeout=30)
    assert result.returncode != 0
    assert result.stderr.count("\n") == 1
    assert f"127.0.0.1:{server.port}" in result.stderr and "--port" in result.stderr


def test_bad_model_directory_and_layout_are_readable_errors(run_tessera, tmp_path):
    for arguments, text in [(("--model", tmp_path), "config.json"),
                            (("--model", MODEL, "--layout", "cp=2"), "does not use cp"),
                            (("--model", MODEL, "--layout", "tp=3"), "tp=3"),
                            (("--model", MODEL, "--host", "nowhere"), "nowhere")]:
        result = run_tessera("serve", "--port", "0", *arguments, timeout=60)
        assert result.returncode != 0 and text in result.stderr, result.stderr


def test_two_ranks_give_the_same_tokens_and_logprobs_as_one(server, tessera):
    jobs = [dict(prompt=PROMPT, max_tokens=60, logprobs=5), dict(prompt="Lily and Tom", temperature=1, seed=3, logprobs=1)]
    with Server(tessera, "--layout", "tp=2") as two:
        assert "tp=2" in two.line
        for job in jobs:
            one_answer, two_answer = server.complete(**job).choices[0], two.complete(**job).choices[0]
            assert two_answer == one_answer
        two.terminate()
        assert two.process.wait(15) == 0
