"""Running a server: ids of requests, keys and quotas, TLS, probes, metrics, logs. Through real clients.

Model: stories260K of the shared data, from $TESSERA_SHARED or ../shared beside the repository.
"""
import hashlib
import json
import re
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

import openai
import pytest
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
