"""Running a server: ids of requests, keys and quotas, TLS, probes, metrics, logs. Through real clients.

Model: stories260K of the shared data, from $TESSERA_SHARED or ../shared beside the repository.
"""
import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve_openai_test import GOOD, MODEL, NAME, PROMPT, Server

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")


@pytest.fixture(scope="module")
def server(tessera):
    with Server(tessera, "--quiet") as running:
        yield running


def ask(server, path, body=None, **headers):
    """Status, headers and text of one call."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_answers_streams_and_errors_carry_the_clients_request_id(server):
    for path, body in [("/v1/completions", GOOD), ("/v1/completions", {**GOOD, "stream": True}), ("/v1/models", None),
                       ("/v1/completions", {**GOOD, "max_tokens": -1}), ("/nothing", None), ("/health", GOOD)]:
        status, headers, text = ask(server, path, body, X_Request_Id="job-7/a")
        assert headers["X-Request-Id"] == "job-7/a", path
        if status >= 400:
            assert json.loads(text)["request_id"] == "job-7/a"
    assert '"id":"cmpl-job-7/a"' in ask(server, "/v1/completions", GOOD, X_Request_Id="job-7/a")[2]


def test_a_request_without_an_id_gets_one_that_the_openai_client_shows(server):
    one, two = server.complete(max_tokens=1), server.complete(max_tokens=1)
    assert re.fullmatch("[0-9a-f]{32}", one._request_id) and one._request_id != two._request_id
    assert one.id == "cmpl-" + one._request_id


def test_a_timeout_asked_for_ends_a_request(server):
    long = {**GOOD, "max_tokens": 450, "ignore_eos": True, "n": 40}
    status, _, text = ask(server, "/v1/completions", long, X_Request_Timeout="0.05")
    assert status == 504 and "did not" in json.loads(text)["error"]["message"]
    server.wait_for("kv_cache_usage_perc", 0)
    for bad in ("soon", "-1", "0", "1s", "nan"):
        status, _, text = ask(server, "/v1/completions", GOOD, X_Request_Timeout=bad)
        assert status == 400 and "X-Request-Timeout" in text


def test_prompts_are_found_in_the_cache_under_the_same_salt_only(server):
    def cached(**extra):
        return server.complete(PROMPT + " there was a little girl named Lily. She loved to play", max_tokens=1,
                               extra_body=extra).usage.prompt_tokens_details.cached_tokens

    assert cached(cache_salt="a") == 0
    assert cached(cache_salt="a") >= 16
    assert cached(cache_salt="b") == 0


KEYS = """
[[key]]
key = "sk-full"
tenant = "full"
[[key]]
sha256 = "{hash}"
tenant = "small"
requests_per_minute = 8
tokens_per_minute = 300
[[key]]
key = "sk-other-model"
tenant = "other"
models = ["gpt-4"]
[[key]]
key = "sk-admin"
tenant = "operator"
admin = true
"""


@pytest.fixture(scope="module")
def guarded(tessera, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write_text(KEYS.format(hash=hashlib.sha256(b"sk-small").hexdigest()))
    with Server(tessera, "--api-keys", keys) as running:
        yield running


def client_of(server, key, **options):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=60, **options)


def complete(client, **options):
    return client.completions.create(**{**GOOD, "max_tokens": 4, "temperature": 0, **options})


def test_only_known_keys_may_call_but_probes_need_none(guarded):
    assert complete(client_of(guarded, "sk-full")).choices[0].text
    for wrong in ("sk-ful", "sk-full2", "sk-FULL"):
        with pytest.raises(openai.AuthenticationError) as refused:
            complete(client_of(guarded, wrong))
        assert refused.value.code == "invalid_api_key"
    for path in ("/v1/models", "/v1/completions", "/nothing", "/v2/models/x"):
        status, headers, text = ask(guarded, path)
        assert status == 401 and headers["WWW-Authenticate"] == "Bearer" and "Authorization: Bearer" in text
    for path in ("/health", "/metrics"):
        assert ask(guarded, path)[0] == 200


def test_a_key_may_use_its_models_only(guarded):
    with pytest.raises(openai.PermissionDeniedError) as refused:
        complete(client_of(guarded, "sk-other-model"))
    assert refused.value.code == "model_not_allowed" and NAME in refused.value.message


@pytest.mark.parametrize("path,body,open_status", [("/debug/trace", None, 200), ("/v2/repository/models/none/load", {}, 404),
                                                   ("/v2/repository/models/none/unload", {}, 404), ("/debug/other", None, 404)])
def test_only_an_admins_key_does_what_is_the_operators(guarded, path, body, open_status):
    assert ask(guarded, path, body)[0] == 401
    status, _, text = ask(guarded, path, body, Authorization="Bearer sk-full")
    assert status == 403 and "'full' may not" in text and "'admin = true'" in text and path in text
    assert ask(guarded, path, body, Authorization="Bearer sk-admin")[0] == open_status
    assert ask(guarded, "/v2/repository/index", {}, Authorization="Bearer sk-full")[0] == 200


def test_quotas_refuse_with_a_time_to_come_back_and_give_back_what_was_not_used(guarded):
    small = client_of(guarded, "sk-small")
    raw = small.completions.with_raw_response.create(**{**GOOD, "max_tokens": 200, "temperature": 0, "stop": "a"})
    assert raw.headers["x-ratelimit-limit-requests"] == "8" and raw.headers["x-ratelimit-limit-tokens"] == "300"
    complete(small, max_tokens=200)  # would not fit beside 205 tokens, had they stayed claimed
    with pytest.raises(openai.RateLimitError) as refused:
        complete(small, max_tokens=200)
    assert refused.value.type == "tokens" and 1 <= int(refused.value.response.headers["retry-after"]) <= 60
    with pytest.raises(openai.RateLimitError) as refused:
        complete(small, max_tokens=400)
    assert "ask for fewer" in refused.value.message
    with pytest.raises(openai.RateLimitError) as refused:
        for _ in range(8):
            complete(small, max_tokens=1)
    assert refused.value.type == "requests" and 1 <= int(refused.value.response.headers["retry-after"]) <= 8
    assert complete(client_of(guarded, "sk-full"), max_tokens=400).choices[0].text


def test_a_key_file_that_cannot_be_read_is_one_error(run_tessera, tmp_path):
    bad = tmp_path / "keys.toml"
    bad.write_text("[[key]]\nkey = 'a'\n")
    for file, text in [(bad, "'tenant' is missing"), (tmp_path / "none.toml", "none.toml")]:
        result = run_tessera("serve", "--model", MODEL, "--port", "0", "--api-keys", file, timeout=30)
        assert result.returncode != 0 and result.stderr.count("\n") == 1 and text in result.stderr


def make_certificate(folder, name):
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key,
                    "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)
    return certificate, key


def test_the_openai_client_speaks_tls_with_a_certificate_that_it_trusts(tessera, tmp_path):
    certificate, key = make_certificate(tmp_path, "own")
    with Server(tessera, "--tls-cert", certificate, "--tls-key", key) as own:
        url = f"https://127.0.0.1:{own.port}/v1"
        trusting = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=certificate))
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=20, http_client=trusting)
        whole = complete(client, max_tokens=200).choices[0].text
        assert "".join(p.choices[0].text for p in complete(client, max_tokens=200, stream=True)) == whole
        assert len(complete(client, prompt="word " * 20, max_tokens=3, n=64).choices) == 64
        with pytest.raises(openai.APIConnectionError):
            complete(openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=20))
        stream = complete(client, max_tokens=450, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        with socket.create_connection(("127.0.0.1", own.port), timeout=5) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" not in plain.recv(1000)
        assert complete(client).choices[0].text
        own.terminate()
        assert own.process.wait(10) == 0


def test_a_wrong_certificate_or_key_is_one_clear_error(run_tessera, tmp_path):
    certificate, key = make_certificate(tmp_path, "one")
    _, other = make_certificate(tmp_path, "two")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for cert, private, text in [(certificate, other, "belongs to another certificate"), (junk, key, "no certificate in PEM form"),
                                (certificate, junk, "no private key in PEM form"), (tmp_path / "none", key, "no such file")]:
        result = run_tessera("serve", "--model", MODEL, "--port", "0", "--tls-cert", cert, "--tls-key", private, timeout=30)
        assert result.returncode != 0 and result.stderr.count("\n") == 1 and text in result.stderr, result.stderr
    result = run_tessera("serve", "--model", MODEL, "--port", "0", "--tls-cert", certificate, timeout=30)
    assert result.returncode != 0 and "--tls-key is missing" in result.stderr


def test_probes_answer_and_tell_the_truth_while_a_worker_is_lost(tessera):
    with Server(tessera, "--layout", "tp=2", "--quiet") as two:
        for path in ("/health", "/health/live", "/health/ready", "/health/startup", "/v2/health/live", "/v2/health/ready"):
            assert ask(two, path)[0] == 200, path
        assert ask(two, "/health/other")[0] == 404 and ask(two, "/health/live", {})[0] == 405
        os.kill(children_of(two)[0], signal.SIGSTOP)
        wait_until(lambda: ask(two, "/health/ready")[0] == 503)
        assert ask(two, "/health/live")[0] == 200
        wait_until(lambda: ask(two, "/health/ready")[0] == 200)


def children_of(server):
    tasks = pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def wait_until(holds, seconds=30):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_probes_answer_while_the_model_loads(tessera):
    """A server whose weights are a pipe that nobody writes to loads for ever."""
    with tempfile.TemporaryDirectory() as folder:
        for file in MODEL.iterdir():
            (pathlib.Path(folder) / file.name).symlink_to(file)
        weights = next(pathlib.Path(folder).glob("*.safetensors"))
        weights.unlink()
        os.mkfifo(weights)
        port = free_port()
        process = subprocess.Popen([tessera, "serve", "--model", folder, "--port", str(port)], stderr=subprocess.PIPE, text=True)
        try:
            loading = type("Loading", (), {"url": f"http://127.0.0.1:{port}"})
            wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            assert ask(loading, "/health/live")[0] == 200
            for path in ("/health/startup", "/health/ready", "/health", "/v2/health/ready"):
                assert ask(loading, path)[0] == 503, path
            status, headers, text = ask(loading, "/v1/completions", GOOD)
            assert status in (503, 404) and "request_id" in text
        finally:
            process.kill()
            process.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_metrics_have_the_names_and_bounds_of_vllm_and_triton(server):
    server.complete(max_tokens=10)
    families = {f.name: f for f in text_string_to_metric_families(ask(server, "/metrics")[2])}
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "gpu_cache_usage_perc", "num_preemptions", "prompt_tokens",
                 "generation_tokens", "request_success", "request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total",
                 "request_params_max_tokens", "time_to_first_token_seconds", "time_per_output_token_seconds", "inter_token_latency_seconds",
                 "e2e_request_latency_seconds", "request_queue_time_seconds", "request_inference_time_seconds", "request_prefill_time_seconds",
                 "request_decode_time_seconds", "prefix_cache_queries", "prefix_cache_hits"):
        family = families["vllm:" + name]
        assert all(s.labels["model_name"] == NAME and s.labels["engine"] == "0" for s in family.samples), name
    bounds = [s.labels["le"] for s in families["vllm:time_to_first_token_seconds"].samples if s.name.endswith("_bucket")]
    assert bounds[:4] == ["0.001", "0.005", "0.01", "0.02"] and bounds[-3:] == ["640.0", "2560.0", "+Inf"]
    for name in ("request_success", "request_failure", "count", "exec_count", "request_duration_us", "queue_duration_us", "compute_input_duration_us",
                 "compute_infer_duration_us", "compute_output_duration_us", "pending_request_count", "first_response_histogram_ms"):
        assert all(s.labels["model"] == NAME and s.labels["version"] == "1" for s in families["nv_inference_" + name].samples), name
    assert families["nv_inference_request_duration_us"].samples[0].value > 0
    assert families["nv_cpu_memory_total_bytes"].samples[0].value > 1e6


def test_head_is_get_without_its_body(server):
    """As aiperf and load balancers ask; the connection goes on."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for path, status in [("/metrics", 200), ("/health", 200), ("/none", 404), ("/v1/completions", 405)]:
        answers = {}
        for method in ("HEAD", "GET"):
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            answers[method] = (answer.status, answer.headers["Content-Type"])
            assert answer.status == status and (len(body) > 0) == (method == "GET")
            assert int(answer.headers["Content-Length"]) > 0
        assert answers["HEAD"] == answers["GET"]


def test_logs_are_json_lines(tessera):
    with Server(tessera, "--log-format", "json") as own:
        ask(own, "/v1/completions", {**GOOD, "max_tokens": 5, "user": "me"}, X_Request_Id="log-1")
        own.terminate()
        assert own.process.wait(20) == 0
        lines = [json.loads(line) for line in own.process.stdout.read().splitlines() if line.startswith("{")]
    line = next(line for line in lines if line["message"] == "request")
    assert (line["request_id"], line["tenant"], line["model"]) == ("log-1", "me", NAME)
    assert (line["prompt_tokens"], line["generated_tokens"], line["finish_reason"]) == (5, 5, "length")
    assert line["total_s"] == pytest.approx(line["queue_s"] + line["prefill_s"] + line["decode_s"], abs=1e-6)


def test_a_trace_shows_the_wait_the_chunks_and_the_answer_of_each_request(tessera):
    with Server(tessera, "--max-batch-tokens", "16", "--max-running", "4", "--quiet") as own:
        ask(own, "/v1/completions", {**GOOD, "prompt": PROMPT * 8, "max_tokens": 6}, X_Request_Id="traced")
        status, _, text = ask(own, "/debug/trace?seconds=100")
        events = json.loads(text)["traceEvents"]
        row = next(e["tid"] for e in events if e["name"] == "thread_name" and e["args"]["name"] == "traced")
        mine = [e for e in events if e.get("tid") == row and e["ph"] == "X"]
        chunks = [e for e in mine if e["name"] == "prefill"]
        assert len(chunks) > 1 and all(e["dur"] > 0 for e in chunks)
        assert [e["args"]["tokens"] for e in mine if e["name"] == "decode"] == [6]
        assert {"llm_request", "queue", "prefill", "decode"} == {e["name"] for e in mine}
        whole = next(e for e in mine if e["name"] == "llm_request")
        assert all(whole["ts"] <= e["ts"] + 1 and e["ts"] + e["dur"] <= whole["ts"] + whole["dur"] + 1 for e in mine)
        said = whole["args"]
        assert said["gen_ai.request.id"] == "traced" and said["gen_ai.usage.completion_tokens"] == 6
        assert said["gen_ai.usage.prompt_tokens"] == sum(e["args"]["tokens"] for e in chunks)
        assert {"step", "sample and detokenise"} <= {e["name"] for e in events if e.get("tid") == 0}
        assert ask(own, "/debug/trace?seconds=no")[0] == 400


def test_the_live_page_is_whole_and_its_figures_move(server):
    status, headers, page = ask(server, "/live")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert "uPlot" in page and "/*" + "live.js*/" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "the page must need nothing else"
    before = json.loads(ask(server, "/live/data")[2])["models"][0]
    server.complete(max_tokens=10)
    after = json.loads(ask(server, "/live/data")[2])["models"][0]
    assert after["name"] == NAME and after["state"] == "READY" and after["health"] == ""
    assert after["generated_tokens"] == before["generated_tokens"] + 10 and after["ended"] == before["ended"] + 1
    assert 0 < after["first_token"][0] <= after["first_token"][2]
