"""KServe's protocol through the official tritonclient, over HTTP and gRPC: health, metadata, inference, streams,
statistics, and models that are unloaded and loaded again.

Model: stories260K of the shared data, twice under two names, from $TESSERA_SHARED or ../shared beside the repository.
"""
import json
import queue
import re
import shutil
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve_openai_test import MODEL, PROMPT, Server, post

http = pytest.importorskip("tritonclient.http")
grpc = pytest.importorskip("tritonclient.grpc")
from tritonclient.utils import InferenceServerException  # noqa: E402

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")
GREEDY = {"temperature": 0, "max_tokens": 20}


class TwoModels(Server):
    """A server of models `a` and `b` with gRPC; `--model a` stands for the first by the base class."""

    def __init__(self, tessera, *arguments, second=MODEL):
        super().__init__(tessera, "--model", f"b={second}", "--grpc-port", "0", "--quiet", *arguments, model=f"a={MODEL}")
        self.name = "a"

    def metrics(self):
        """Those of model `a`."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        return {(s.name, s.labels.get("finished_reason")): s.value for f in families for s in f.samples
                if "le" not in s.labels and s.labels.get("model_name") == "a"}

    def read_line(self):
        """The lines of gRPC and of both models come in any order."""
        lines = [self.process.stdout.readline() for _ in range(3)]
        self.grpc_port = int(next(re.search(r"gRPC on [^:]*:(\d+)", line) for line in lines if "gRPC" in line).group(1))
        return next(line for line in lines if "http" in line)


@pytest.fixture(scope="module")
def server(tessera):
    with TwoModels(tessera) as running:
        yield running


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request, server):
    if request.param == "http":
        return http, http.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=60, connection_timeout=60)
    return grpc, grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")


def inputs_of(library, text=PROMPT, **more):
    out = []
    for name, value in {"text_input": text, **more}.items():
        if isinstance(value, dict):
            value = json.dumps(value)
        kind, array = ("BOOL", np.array([value])) if isinstance(value, bool) else ("BYTES", np.array([value.encode()], dtype=object))
        out.append(library.InferInput(name, [1], kind))
        out[-1].set_data_from_numpy(array)
    return out


def field(answer, name):
    return answer[name] if isinstance(answer, dict) else getattr(answer, name)


def test_health_and_metadata(client):
    library, triton = client
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("a") and not triton.is_model_ready("none")
    server = triton.get_server_metadata()
    assert field(server, "name") == "tessera" and "model_repository" in field(server, "extensions")
    model = triton.get_model_metadata("a", "1")
    assert [field(tensor, "name") for tensor in field(model, "inputs")][0] == "text_input"
    assert [field(tensor, "datatype") for tensor in field(model, "outputs")][0] == "BYTES"
    config = triton.get_model_config("a")
    assert field(field(config if isinstance(config, dict) else config.config, "model_transaction_policy"), "decoupled") is True
    for wrong in (("none",), ("a", "2") if library is http else ("none",)):
        with pytest.raises(InferenceServerException):
            triton.get_model_metadata(*wrong)


def test_inference_equals_openais_completion(client, server):
    library, triton = client
    whole = server.text(PROMPT, max_tokens=20)
    inputs = inputs_of(library, sampling_parameters=GREEDY, exclude_input_in_output=True, return_finish_reason=True, return_num_output_tokens=True)
    answer = triton.infer("a", inputs, request_id="mine")
    assert answer.as_numpy("text_output")[0].decode() == whole
    assert answer.as_numpy("finish_reason")[0] == b"length" and answer.as_numpy("num_output_tokens")[0] == 20
    assert field(answer.get_response(), "id") == "mine"
    asked = [library.InferRequestedOutput("text_output")]
    assert triton.infer("a", inputs_of(library), outputs=asked, parameters=GREEDY).as_numpy("text_output")[0].decode() == PROMPT + whole


def test_numbers_may_be_texts_and_http_may_be_without_binary_tensors(server):
    triton = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    inputs = [http.InferInput("text_input", [1], "BYTES"), http.InferInput("sampling_parameters", [1], "BYTES")]
    inputs[0].set_data_from_numpy(np.array([PROMPT.encode()], dtype=object), binary_data=False)
    inputs[1].set_data_from_numpy(np.array([b'{"temperature": "0", "max_tokens": "5"}'], dtype=object), binary_data=False)
    answer = triton.infer("a", inputs, outputs=[http.InferRequestedOutput("text_output", binary_data=False)])
    assert answer.as_numpy("text_output")[0] == PROMPT + server.text(PROMPT, max_tokens=5)


def text_tensor(library, name, texts, kind="BYTES"):
    one = library.InferInput(name, [len(texts)], kind)
    one.set_data_from_numpy(np.array(texts, dtype=object if kind == "BYTES" else np.int32))
    return one


BAD = [
    (lambda lib: [], "text_input"),
    (lambda lib: inputs_of(lib, sampling_parameters={"temprature": 1}), "temperature"),
    (lambda lib: inputs_of(lib, sampling_parameters="no json"), "JSON object"),
    (lambda lib: inputs_of(lib, sampling_parameters={"max_tokens": 9999}), "512"),
    (lambda lib: inputs_of(lib, sampling_parameters={"n": 2}), "'n'"),
    (lambda lib: inputs_of(lib, sampling_parameters={"logprobs": 1}), "'logprobs'"),
    (lambda lib: inputs_of(lib, steam=True), "did you mean 'stream'"),
    (lambda lib: inputs_of(lib, stream="yes"), "datatype BYTES, expected BOOL"),
    (lambda lib: [text_tensor(lib, "text_input", [b"a", b"b"])], "shape [2], expected [1]"),
    (lambda lib: [text_tensor(lib, "text_input", [1], "INT32")], "datatype INT32, expected BYTES"),
    (lambda lib: inputs_of(lib) + inputs_of(lib), "stands twice"),
]


def test_bad_requests_are_refused_with_their_reason(client):
    library, triton = client
    for inputs, text in BAD:
        with pytest.raises(InferenceServerException) as refused:
            triton.infer("a", inputs(library))
        assert text in refused.value.message()
        assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    with pytest.raises(InferenceServerException, match="has no output 'text'; it gives text_output"):
        triton.infer("a", inputs_of(library), outputs=[library.InferRequestedOutput("text")])
    with pytest.raises(InferenceServerException, match="does not exist; this server has 'a', 'b'") as refused:
        triton.infer("none", inputs_of(library))
    assert refused.value.status() in ("404", "StatusCode.NOT_FOUND")


def test_torn_bodies_are_refused(server):
    """What no client sends: an answer with a reason all the same, and never a 5xx."""
    one = {"name": "text_input", "datatype": "BYTES", "shape": [1]}
    for body, headers in [(b"{", {}), (b"[]", {}), (b"{}", {}), (b'{"inputs": 5}', {}), (b"[" * 5000, {}),
                          (b"{}", {"Inference-Header-Content-Length": "-1"}), (b"{}", {"Inference-Header-Content-Length": "99"}),
                          (json.dumps({"inputs": [{**one, "shape": [-1]}]}).encode(), {}),
                          (json.dumps({"inputs": [{**one, "shape": [2**62, 4], "data": []}]}).encode(), {}),
                          (json.dumps({"inputs": [{**one, "data": [5]}]}).encode(), {}),
                          (json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": 2**63}}]}).encode(), {}),
                          (json.dumps({"inputs": [{**one, "name": 5, "data": ["a"]}]}).encode(), {}),
                          (json.dumps({"inputs": [{**one, "data": ["a"]}], "outputs": 5}).encode(), {})]:
        request = urllib.request.Request(server.url + "/v2/models/a/infer", body, headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        assert refused.value.code == 400 and len(json.loads(refused.value.read())["error"]) > 10, body


def test_an_index_is_asked_for_with_a_small_body(server):
    assert post(server, {"ready": True}, "/v2/repository/index")[0] == 200
    status, answer = post(server, {"ready": True, "more": "x" * 5000}, "/v2/repository/index")
    assert status == 400 and "bytes" in answer["error"]


def test_a_grpc_stream_carries_several_requests_and_joins_to_whole_answers(server):
    triton = grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
    answers = queue.Queue()
    triton.start_stream(lambda result, error: answers.put((result, error)))
    for name, stream in [("streamed", True), ("whole", False)]:
        triton.async_stream_infer("a", inputs_of(grpc, stream=stream, sampling_parameters={**GREEDY, "max_tokens": 60}), request_id=name)
    triton.async_stream_infer("a", inputs_of(grpc, sampling_parameters={"max_tokens": 9999}), request_id="bad")
    texts, ended, errors = {"streamed": [], "whole": []}, set(), []
    while len(ended) < 2 or not errors:
        result, error = answers.get(timeout=60)
        if error:
            errors.append(error)
            continue
        response = result.get_response()
        texts[response.id].append(result.as_numpy("text_output")[0].decode())
        if response.id == "whole" or response.parameters["triton_final_response"].bool_param:
            ended.add(response.id)
    triton.stop_stream()
    assert "512" in errors[0].message()
    assert len(texts["whole"]) == 1 and len(texts["streamed"]) > 3
    assert "".join(texts["streamed"]) == texts["whole"][0] == PROMPT + server.text(PROMPT, max_tokens=60)


def test_a_grpc_client_that_leaves_frees_its_blocks(server):
    triton = grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
    first = threading.Event()
    triton.start_stream(lambda result, error: first.set())
    triton.async_stream_infer("a", inputs_of(grpc, stream=True, sampling_parameters={"max_tokens": 480, "ignore_eos": True}))
    assert first.wait(60)
    triton.stop_stream(cancel_requests=True)
    server.wait_for("num_requests_running", 0, seconds=10)


def test_generate_and_generate_stream(server):
    whole = server.text(PROMPT, max_tokens=20)
    body = {"text_input": PROMPT, "parameters": {**GREEDY, "exclude_input_in_output": True}}
    status, answer = post(server, body, "/v2/models/a/generate")
    assert status == 200 and answer["text_output"] == whole and answer["model_name"] == "a"
    request = urllib.request.Request(server.url + "/v2/models/a/generate_stream", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = [json.loads(line[5:]) for line in response.read().decode().splitlines() if line.startswith("data:")]
    assert "".join(event["text_output"] for event in events) == whole and len(events) > 1
    assert post(server, {"parameters": {}}, "/v2/models/a/generate")[0] == 400


def test_statistics_count_what_was_served(client):
    library, triton = client

    def count():
        answer = triton.get_inference_statistics("a")
        one = field(answer, "model_stats")[0]
        return int(field(one, "inference_count"))

    before = count()
    triton.infer("a", inputs_of(library, sampling_parameters=GREEDY))
    assert count() == before + 1


def states(triton):
    index = triton.get_model_repository_index()
    return {field(model, "name"): field(model, "state") for model in (index if isinstance(index, list) else index.models)}


def test_a_model_is_unloaded_and_loaded_while_the_other_serves(client, server):
    library, triton = client
    assert states(triton) == {"a": "READY", "b": "READY"}
    assert {model.id for model in server.client.models.list()} == {"a", "b"}
    triton.unload_model("b")
    assert states(triton) == {"a": "READY", "b": "UNAVAILABLE"}
    assert [model.id for model in server.client.models.list()] == ["a"]
    assert triton.is_server_ready() and not triton.is_model_ready("b")
    with pytest.raises(InferenceServerException, match="not loaded"):
        triton.infer("b", inputs_of(library))
    with pytest.raises(openai.InternalServerError, match="not loaded"):
        server.client.completions.create(model="b", prompt=PROMPT, max_tokens=1)
    triton.infer("a", inputs_of(library, sampling_parameters=GREEDY))
    triton.load_model("b")
    assert states(triton)["b"] == "READY"
    assert triton.infer("b", inputs_of(library, sampling_parameters=GREEDY)).as_numpy("text_output")[0]
    with pytest.raises(InferenceServerException, match="does not exist"):
        triton.load_model("none")


def test_a_torn_model_file_is_told_and_the_server_lives_on(tessera, tmp_path):
    for file in MODEL.iterdir():
        shutil.copy(file, tmp_path / file.name)
    weights = next(tmp_path.glob("*.safetensors"))
    whole = weights.read_bytes()
    with TwoModels(tessera, second=tmp_path) as own:
        triton = http.InferenceServerClient(f"127.0.0.1:{own.port}", network_timeout=60, connection_timeout=60)
        for torn in (whole[: len(whole) // 2], b"\xff" * 64, b""):
            triton.unload_model("b")
            weights.write_bytes(torn)
            with pytest.raises(InferenceServerException, match="safetensors"):
                triton.load_model("b")
            reason = next(model["reason"] for model in triton.get_model_repository_index() if model["name"] == "b")
            assert weights.name in reason and states(triton) == {"a": "READY", "b": "UNAVAILABLE"}
            assert triton.is_server_live() and not triton.is_server_ready()
            triton.infer("a", inputs_of(http, sampling_parameters=GREEDY))
        weights.write_bytes(whole)
        triton.load_model("b")
        assert triton.is_server_ready() and triton.infer("b", inputs_of(http, sampling_parameters=GREEDY)).as_numpy("text_output")[0]


def test_requests_of_a_model_that_goes_end_properly(server):
    triton = http.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=60)
    options = dict(model="b", prompt=PROMPT, max_tokens=450, temperature=0, extra_body={"ignore_eos": True})
    whole = server.client.completions.create(**options).choices[0].text
    stream = server.client.completions.create(stream=True, **options)
    text = next(iter(stream)).choices[0].text
    gone = threading.Thread(target=lambda: triton.unload_model("b"))
    gone.start()
    text += "".join(part.choices[0].text for part in stream)
    gone.join(60)
    assert text == whole
    http.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=60).load_model("b")


def test_sigterm_lets_a_grpc_request_finish(tessera):
    with TwoModels(tessera) as own:
        triton = grpc.InferenceServerClient(f"127.0.0.1:{own.grpc_port}")
        done = queue.Queue()
        inputs = inputs_of(grpc, sampling_parameters={"max_tokens": 400, "temperature": 0, "ignore_eos": True})
        triton.async_infer("a", inputs, lambda result, error: done.put((result, error)))
        deadline = time.monotonic() + 20
        while states(triton) and own.metrics().get(("vllm:num_requests_running", None), 0) == 0 and time.monotonic() < deadline:
            time.sleep(0.005)
        own.terminate()
        result, error = done.get(timeout=60)
        assert error is None and result.as_numpy("text_output")[0]
        assert own.process.wait(20) == 0


def test_only_an_admins_key_loads_and_unloads_models(tessera, tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text('[[key]]\nkey = "sk-a"\ntenant = "t"\n[[key]]\nkey = "sk-admin"\ntenant = "operator"\nadmin = true\n')
    with TwoModels(tessera, "--api-keys", keys) as own:
        for triton in (grpc.InferenceServerClient(f"127.0.0.1:{own.grpc_port}"), http.InferenceServerClient(f"127.0.0.1:{own.port}")):
            user, admin = {"authorization": "Bearer sk-a"}, {"authorization": "Bearer sk-admin"}
            for change in (triton.unload_model, triton.load_model):
                with pytest.raises(InferenceServerException, match="'t' may not .*'admin = true'") as refused:
                    change("b", headers=user)
                assert refused.value.status() in ("403", "StatusCode.PERMISSION_DENIED")
                assert triton.is_model_ready("b", headers=user) == (change == triton.unload_model)
                change("b", headers=admin)
            assert triton.is_model_ready("b", headers=user)


def test_keys_and_a_port_in_use_hold_for_grpc_too(tessera, run_tessera, server, tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text('[[key]]\nkey = "sk-a"\ntenant = "t"\n')
    with TwoModels(tessera, "--api-keys", keys) as own:
        triton = grpc.InferenceServerClient(f"127.0.0.1:{own.grpc_port}")
        assert triton.is_server_live()
        with pytest.raises(InferenceServerException, match="API key"):
            triton.infer("a", inputs_of(grpc))
        headers = {"authorization": "Bearer sk-a"}
        assert triton.infer("a", inputs_of(grpc, sampling_parameters=GREEDY), headers=headers).as_numpy("text_output")[0]
    result = run_tessera("serve", "--model", MODEL, "--port", "0", "--grpc-port", server.grpc_port, timeout=60)
    assert result.returncode != 0 and "--grpc-port" in result.stderr
