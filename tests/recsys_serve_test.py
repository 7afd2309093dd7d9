"""`tessera recsys serve`: Adult's test rows over HTTP score as training said, and as PyTorch says; mistakes; life and
death."""
import csv
import http.client
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

NUMBERS = ["age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"]
COLUMNS = ["age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
           "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"]


class Server:
    """`tessera recsys serve` on a free port."""

    def __init__(self, tessera, folder, *more):
        command = [tessera, "recsys", "serve", "--model", folder, "--port", "0", *map(str, more)]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        assert "http://" in self.line, self.process.stderr.read()
        self.url = "http://" + self.line.split("http://")[1].split()[0]

    def get(self, path):
        return self.ask(path, None)

    def ask(self, path, body):
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=60) as answer:
                text, status = answer.read().decode(), answer.status
        except urllib.error.HTTPError as error:
            text, status = error.read().decode(), error.code
        return status, text if path == "/metrics" else json.loads(text)

    def score(self, body):
        status, answer = self.ask("/v1/score", body)
        assert status == 200, answer
        return answer

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture(scope="session")
def adult():
    folder = pathlib.Path(os.environ.get("TESSERA_SHARED", pathlib.Path(__file__).parents[2] / "shared")) / "data/recsys/adult"
    if not folder.exists():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="session")
def exported(tessera, root, adult, tmp_path_factory):
    """An epoch of Adult: folder and result."""
    folder = tmp_path_factory.mktemp("adult")
    command = [tessera, "recsys", "train", "--config", root / "examples/recsys/adult.toml", f"data.path={adult}",
               "train.deterministic=true", "--export", folder / "export", "--json", folder / "result.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "export", json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def server(tessera, exported):
    server = Server(tessera, exported[0])
    yield server
    assert server.stop()[0] == 0


def test_rows(path):
    """Fields of adult.test by column, and labels."""
    with open(path, newline="") as file:
        rows = [[field.strip() for field in row] for row in csv.reader(file) if len(row) == len(COLUMNS)]
    if rows[0][0] == "age":
        rows = rows[1:]
    labels = np.array([row[-1].rstrip(".") == ">50K" for row in rows])
    return {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS[:-1])}, labels


test_rows.__test__ = False


def request(columns, first=0, last=None):
    part = {name: values[first:last] for name, values in columns.items()}
    return {"dense": {name: [float(value) for value in part[name]] for name in NUMBERS},
            "sparse": {name: [None if value == "?" else value for value in values] for name, values in part.items()
                       if name not in NUMBERS}}


def auc_of(scores, labels):
    order = np.argsort(scores, kind="stable")
    sorted_scores, ranks = scores[order], np.empty(len(scores))
    _, first, counts = np.unique(sorted_scores, return_index=True, return_counts=True)
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    positives = labels.sum()
    return (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def test_answers_score_the_test_rows_as_training_did(server, exported, adult):
    columns, labels = test_rows(adult / "adult.test")
    scores = np.concatenate([server.score(request(columns, k, k + 2048))["scores"] for k in range(0, len(labels), 2048)])
    loss = -np.where(labels, np.log(scores), np.log1p(-scores)).mean()
    assert len(scores) == exported[1]["test_rows"]
    assert auc_of(scores, labels) == pytest.approx(exported[1]["test_auc"], abs=1e-12)
    assert loss == pytest.approx(exported[1]["test_log_loss"], abs=1e-12)


def test_roles_in_processes_export_the_same_model(tessera, root, adult, server, exported, tmp_path):
    """Versions while training, and a server and the trainer that are killed in between."""
    command = [tessera, "launch", "--fault", "server:1:kill@60", "--fault", "trainer:0:kill@150", "--", "recsys", "train", "--config",
               root / "examples/recsys/adult.toml", f"data.path={adult}", "train.deterministic=true", "train.servers=2", "train.epochs=1",
               "--export", tmp_path / "export", "--export-interval", "0.02", "--json", tmp_path / "result.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["test_auc"] == exported[1]["test_auc"]
    versions = [json.loads(path.read_text()) for path in (tmp_path / "export").glob("version-*.json")]
    assert all(len(version["rows"]) == 2 for version in versions) and max(version["step"] for version in versions) == exported[1]["steps"]
    columns, _ = test_rows(adult / "adult.test")
    other = Server(tessera, tmp_path / "export")
    try:
        assert other.score(request(columns, 0, 2048))["scores"] == server.score(request(columns, 0, 2048))["scores"]
    finally:
        assert other.stop()[0] == 0


def test_dense_network_is_that_of_pytorch(server, exported):
    """Ids that nobody trained have rows of at most 0.01 in size, so a network that is fed zeros comes close; numbers as
    texts are read like those of a file."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(sorted(exported[0].glob("dense-*.safetensors"))[-1])
    described = json.loads((exported[0] / "model.json").read_text())
    raw = {"age": 39, "fnlwgt": 77516, "education-num": 13, "capital-gain": 2174, "capital-loss": 0, "hours-per-week": 40}
    numbers = torch.tensor([np.float32((raw[f["name"]] - f["mean"]) * f["scale"]) for f in described["features"]["dense"]])

    def linear(x, name):
        return torch.nn.functional.linear(x, weights[name + ".weight"], weights[name + ".bias"])

    slots = [f["name"] for f in described["features"]["sparse"]]
    x = torch.cat([torch.relu(linear(numbers, "bottom.0")), torch.zeros(len(slots) * described["lookup"]["dim"])])
    logit = linear(torch.relu(linear(torch.relu(linear(x, "top.0")), "top.2")), "top.4").item()
    body = {"dense": {name: [value, str(value)] for name, value in raw.items()}, "sparse": {name: ["never seen"] * 2 for name in slots}}
    scores = server.score(body)["scores"]
    assert scores[0] == scores[1]
    assert np.log(scores[0] / (1 - scores[0])) == pytest.approx(logit, abs=0.1)


def test_errors_are_4xx_and_name_the_feature(server):
    for body, field in [({"dense": {"agee": [1]}}, "dense.agee"), ({}, "dense.age"), ({"dense": {"age": ["old"]}}, "dense.age")]:
        status, answer = server.ask("/v1/score", body)
        assert status == 400 and answer["error"]["param"] == field and field in answer["error"]["message"]
    assert server.get("/v1/score")[0] == 405
    assert server.get("/nowhere")[0] == 404


def test_readiness_and_metrics(server):
    assert server.get("/health")[0] == 200
    assert server.get("/health/ready")[0] == 200
    status, model = server.get("/v1/model")
    assert status == 200 and model["rows"] > 0 and [f["name"] for f in model["features"]["dense"]] == NUMBERS
    text = server.get("/metrics")[1]
    assert "tessera_recsys_ready 1\n" in text and 'tessera_recsys_requests_total{status="200"}' in text


def test_kserve_clients_get_the_same_scores(server, exported, adult):
    """The Open Inference Protocol: what the model says of itself is what it takes, and scores are those of /v1/score."""
    name = exported[0].name
    assert server.get("/v2/health/ready")[0] == server.get(f"/v2/models/{name}/ready")[0] == server.get("/v2")[0] == 200
    status, model = server.get(f"/v2/models/{name}")
    assert status == 200 and [output["name"] for output in model["outputs"]] == ["score", "logit"]
    columns, _ = test_rows(adult / "adult.test")
    inputs = []
    for tensor in model["inputs"]:
        values = columns[tensor["name"]][:50]
        data = [float(value) for value in values] if tensor["datatype"] == "FP64" else values
        inputs.append({"name": tensor["name"], "datatype": tensor["datatype"], "shape": [50], "data": data})
    body = {"id": "7", "inputs": inputs, "outputs": [{"name": "score"}, {"name": "logit"}]}
    version = model["versions"][0]
    for path in (f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/{version}/infer"):
        status, answer = server.ask(path, body)
        assert status == 200, answer
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", name, version)
        score, logit = answer["outputs"]
        assert score["shape"] == [50] and score["data"] == server.score(request(columns, 0, 50))["scores"]
        assert np.allclose(1 / (1 + np.exp(-np.array(logit["data"]))), score["data"], atol=1e-7)
    for wrong, says in [({"inputs": inputs[1:]}, "age is missing"), ({"inputs": [{**inputs[0], "name": "agee"}]}, "did you mean 'age'"),
                        ({"inputs": [{**inputs[0], "shape": [49]}]}, "50 values for shape [49]"), ({}, "inputs is missing"),
                        ({"inputs": [{**inputs[0], "data": ["x"] * 50}]}, "row 0: got \"x\", expected a number")]:
        status, answer = server.ask(f"/v2/models/{name}/infer", wrong)
        assert status == 400 and says in answer["error"], answer
    assert server.get("/v2/models/other")[0] == 404 and server.get(f"/v2/models/{name}/infer")[0] == 405


def test_waits_for_a_model_and_follows_training(tessera, root, tmp_path):
    """A server that is there first becomes ready, then follows the versions that training writes."""
    folder = tmp_path / "export"
    folder.mkdir()
    server = Server(tessera, folder)
    assert "waiting for a model" in server.line
    assert server.get("/health/ready")[0] == 503 and server.ask("/v1/score", {})[0] == 503
    command = [tessera, "recsys", "train", "--config", root / "examples/recsys/synthetic.toml", "data.slots=1000,200",
               "data.train_rows=3000000", "data.test_rows=0", "train.epochs=100", "--export", folder, "--export-interval", "0.25"]
    trainer = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    body = {"dense": {f"I{i}": [0] for i in range(1, 14)}, "sparse": {"C1": [1], "C2": [2]}}
    try:
        deadline = time.monotonic() + 60
        while server.get("/health/ready")[0] != 200:
            assert time.monotonic() < deadline and trainer.poll() is None
            time.sleep(0.05)
        seen = [server.score(body)]
        while seen[-1]["version"] < seen[0]["version"] + 4:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            seen.append(server.score(body))
    finally:
        trainer.kill()
        trainer.wait()
    assert len({answer["scores"][0] for answer in seen}) >= 4
    # How old answers are on a quiet machine is measured by bench/recsys_replica; here others run beside it.
    assert min(answer["age_s"] for answer in seen) <= 1
    assert server.stop()[0] == 0


def test_sigterm_lets_requests_end(tessera, exported, adult):
    """Six requests, one worker, SIGTERM while some of them wait: all are answered."""
    server = Server(tessera, exported[0])
    columns, labels = test_rows(adult / "adult.test")
    body = json.dumps(request(columns)).encode()
    connections = [http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60) for _ in range(6)]
    for connection in connections:
        connection.request("POST", "/v1/score", body)

    def arrived():
        text = server.get("/metrics")[1]
        figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        answered = sum(float(value) for name, value in figures.items() if name.startswith("tessera_recsys_requests_total"))
        return answered + float(figures["tessera_recsys_requests_waiting"])

    deadline = time.monotonic() + 60
    while arrived() < 5:  # the sixth may be under way
        assert time.monotonic() < deadline
    server.process.send_signal(signal.SIGTERM)
    for connection in connections:
        answer = connection.getresponse()
        assert answer.status == 200 and len(json.load(answer)["scores"]) == len(labels)
        connection.close()
    out, err = server.process.communicate(timeout=60)
    assert server.process.returncode == 0 and "drained" in out, err


def test_a_folder_that_is_not_there_is_one_clear_error(run_tessera, tmp_path):
    done = run_tessera("recsys", "serve", "--model", tmp_path / "nothing", "--port", "0")
    assert done.returncode != 0 and "recsys train --export" in done.stderr and done.stderr.count("\n") == 1
