"""`tessera recsys train`: the same bits as a single PyTorch process, and mistakes."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

SMALL = ["data.slots=40,500,12", "data.numbers=4", "data.train_rows=3000", "data.test_rows=1000", "data.signal=2",
         "train.batch=64", "train.mode=sync", "embedding.dim=8", "model.top=32,16", "model.bottom=16,8",
         "embedding.optimizer=adagrad", "embedding.learning_rate=0.05", "wide.learning_rate=0.03"]


@pytest.fixture(scope="session")
def probe(tessera, root):
    path = pathlib.Path(os.environ.get("RECSYS_PROBE", tessera.parent / "recsys_probe"))
    assert path.exists(), f"{path} is not built"

    def run(folder, *overrides):
        command = [path, root / "examples/recsys/synthetic.toml", folder, *SMALL, *overrides]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return Run(folder)

    return run


class Run:
    """What recsys_probe left: see its header."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.index = json.loads((self.folder / "index.json").read_text())

    def floats(self, name, *shape):
        return np.fromfile(self.folder / name, np.float32).reshape(*shape)

    def ints(self, name):
        return np.fromfile(self.folder / name, np.int64)

    def state(self, when):
        rows = self.floats(f"{when}.rows", self.index["keys"], self.index["dim"])
        return rows, self.floats(f"{when}.wide", -1, 1), self.floats(f"{when}.dense", -1)


def row_optimizers():
    """torch.optim.SGD as it is; torch.optim.Adagrad with correctly rounded square roots: those that torch takes from
    MKL are off by an ulp at times, and differ between processors."""
    import torch

    class Adagrad(torch.optim.Optimizer):
        def __init__(self, parameters, lr):
            super().__init__(parameters, {"lr": lr})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    total = self.state[parameter].setdefault("sum", torch.zeros_like(parameter))
                    total.addcmul_(parameter.grad, parameter.grad)
                    deviation = total.double().sqrt().float().add_(1e-10)
                    parameter.addcdiv_(parameter.grad, deviation, value=-group["lr"])

    return {"sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, foreach=False), "adagrad": Adagrad}


def reference(run, kind, pooling, dense_optimizer, rows_by="adagrad", batch=64, softmax=False):
    """The same training by torch's autograd and optimizers; returns rows, wide rows, dense weights, losses."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    rows, wide, dense = (torch.from_numpy(array.copy()) for array in run.state("initial"))
    labels, numeric = torch.from_numpy(run.floats("labels", -1)), torch.from_numpy(run.floats("numeric", run.index["rows"], -1))
    slots = [(torch.from_numpy(run.ints(f"slot-{s}.places")), run.ints(f"slot-{s}.offsets")) for s in range(run.index["slots"])]
    weights, at = {}, 0
    for parameter in run.index["parameters"]:
        size = int(np.prod(parameter["shape"]))
        weights[parameter["name"]] = dense[at:at + size].view(parameter["shape"]).clone().requires_grad_()
        at += size
    rows.requires_grad_()
    wide.requires_grad_()

    def mlp(name, x, last_relu):
        layers = sum(1 for key in weights if key.startswith(name + ".") and key.endswith(".weight"))
        for i in range(layers):
            x = F.linear(x, weights[f"{name}.{2 * i}.weight"], weights[f"{name}.{2 * i}.bias"])
            if last_relu or i + 1 < layers:
                x = torch.relu(x)
        return x

    def pooled(table, first, last):
        parts = []
        for places, offsets in slots:
            counts = offsets[first + 1:last + 1] - offsets[first:last]
            taken = F.embedding(places[offsets[first]:offsets[last]], table)
            if (counts == 1).all():
                parts.append(taken)
                continue
            bags = []
            for bag, count in zip(taken.split(counts.tolist()), counts):
                total = bag[0] if count else torch.zeros(table.shape[1])
                for row in bag[1:]:
                    total = total + row
                scale = {"sum": 1.0, "mean": 1 / max(1, count), "sqrt-n": 1 / np.sqrt(max(1, count))}[pooling]
                bags.append(total * np.float32(scale))
            parts.append(torch.stack(bags))
        return torch.stack(parts, 1)

    def attended(sequence, v, first, last):
        """Deep Interest Network: the behaviours of each row, weighted for its target."""
        places, offsets = slots[sequence["slot"]]
        out = []
        for i in range(first, last):
            keys = F.embedding(places[max(offsets[i], offsets[i + 1] - sequence["length"]):offsets[i + 1]], rows)
            query = v[i - first, sequence["target"]].expand_as(keys)
            scores = mlp(f"attention.{sequence['slot']}", torch.cat([query, keys, query - keys, query * keys], 1), False).squeeze(1)
            out.append(((torch.softmax(scores, 0) if softmax else scores).unsqueeze(1) * keys).sum(0))
        return torch.stack(out)

    def with_sequences(v, first, last):
        parts = list(v.unbind(1))
        for sequence in run.index["sequences"]:
            parts[sequence["slot"]] = attended(sequence, v, first, last)
        return torch.stack(parts, 1)

    def logits(x, v, w):
        has_bottom = any(key.startswith("bottom.") for key in weights)
        if kind in ("deepfm", "wide-deep"):
            deep = mlp("top", torch.cat([x, v.flatten(1)], 1), False)
            out = F.linear(x, weights["linear.weight"], weights["linear.bias"]) + w.sum(1) + deep
            if kind == "deepfm":
                out = out + 0.5 * (v.sum(1) ** 2 - (v ** 2).sum(1)).sum(1, keepdim=True)
            return out
        numbers = mlp("bottom", x, True) if has_bottom else x
        if kind == "dlrm":
            z = torch.cat([numbers.unsqueeze(1), v], 1)
            pairs = torch.tril_indices(z.shape[1], z.shape[1], -1)
            dots = torch.bmm(z, z.transpose(1, 2)).flatten(1).index_select(1, pairs[0] * z.shape[1] + pairs[1])
            return mlp("top", torch.cat([numbers, dots], 1), False)
        joined = torch.cat([numbers, v.flatten(1)], 1)
        if kind == "dcnv2":
            x0, x1, layer = joined, joined, 0
            while f"cross.{layer}.u.weight" in weights or f"cross.{layer}.w.weight" in weights:
                if f"cross.{layer}.u.weight" in weights:
                    product = F.linear(F.linear(x1, weights[f"cross.{layer}.v.weight"]), weights[f"cross.{layer}.u.weight"],
                                       weights[f"cross.{layer}.u.bias"])
                else:
                    product = F.linear(x1, weights[f"cross.{layer}.w.weight"], weights[f"cross.{layer}.w.bias"])
                x1, layer = x0 * product + x1, layer + 1
            joined = x1
        return mlp("top", joined, False)

    row_optimizer = row_optimizers()[rows_by]([rows], lr=0.05)
    wide_optimizer = row_optimizers()["adagrad"]([wide], lr=0.03)
    dense_class = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}[dense_optimizer]
    weight_optimizer = dense_class(weights.values(), lr=0.01, foreach=False)
    losses = []
    for first in range(0, len(labels), batch):
        last = min(first + batch, len(labels))
        out = logits(numeric[first:last], with_sequences(pooled(rows, first, last), first, last), pooled(wide, first, last))
        loss = F.binary_cross_entropy_with_logits(out, labels[first:last].unsqueeze(1))
        losses.append(loss.item())
        for optimizer in (row_optimizer, wide_optimizer, weight_optimizer):
            optimizer.zero_grad()
        loss.backward()
        row_optimizer.step()
        weight_optimizer.step()
        if wide.grad is not None:
            wide_optimizer.step()
    flat = torch.cat([weight.detach().flatten() for weight in weights.values()])
    return rows.detach().numpy(), wide.detach().numpy(), flat.numpy(), np.array(losses)


MULTI_HOT = ["data.slots=mlperf-multi-hot", "data.scale=0.0001", "data.train_rows=200", "data.test_rows=50", "train.batch=64"]


@pytest.mark.parametrize("kind,dense,rows_by,extra", [
    ("dnn", "sgd", "sgd", []),
    ("dnn", "adam", "adagrad", ["train.servers=3"]),
    ("dlrm", "adam", "adagrad", []),
    ("dlrm", "sgd", "adagrad", ["embedding.pooling=sqrt-n", *MULTI_HOT]),
    ("dnn", "sgd", "sgd", ["embedding.pooling=mean", *MULTI_HOT]),
    ("dcnv2", "adagrad", "adagrad", []),
    ("dcnv2", "sgd", "adagrad", ["model.cross_rank=3"]),
    ("wide-deep", "adam", "adagrad", []),
    ("deepfm", "adam", "adagrad", []),
])
def test_staleness_0_gives_the_bits_of_one_pytorch_process(probe, tmp_path, kind, dense, rows_by, extra):
    pytest.importorskip("torch")
    run = probe(tmp_path, f"model.kind={kind}", f"dense.optimizer={dense}", "dense.learning_rate=0.01",
                f"embedding.optimizer={rows_by}", *extra)
    pooling = next((word.split("=")[1] for word in extra if word.startswith("embedding.pooling")), "sum")
    expected = reference(run, kind, pooling, dense, rows_by)
    got = [*run.state("final"), np.array(run.index["losses"])]
    for name, ours, theirs in zip(["rows", "wide rows", "weights", "losses"], got, expected):
        if kind in ("deepfm", "wide-deep"):  # their sums over slots stand in another order than autograd's
            assert np.abs(ours - theirs).max() < 2e-5, name
        else:
            assert np.array_equal(ours, theirs), (name, np.abs(ours - theirs).max())
    assert not np.array_equal(got[0], run.state("initial")[0])


def write_histories(path, rows, seed):
    """A user clicks an item when one of the same kind (its number mod 5) is among the last ten of a long history."""
    random = np.random.default_rng(seed)
    with open(path, "w") as file:
        file.write("click,price,item,history\n")
        for _ in range(rows):
            history, item = random.integers(0, 60, random.integers(0, 14)), random.integers(0, 60)
            click = int(random.random() < (0.85 if (history[-10:] % 5 == item % 5).any() else 0.1))
            file.write(f"{click},{random.normal():.3f},i{item},{' '.join(f'i{past}' for past in history)}\n")
    return path


def histories(path, test):
    return ["data.kind=csv", f"data.path={path}", f"data.test_path={test}", "data.label=click", "data.positive=1", "data.negative=0",
            "data.numeric=price", "data.categorical=item", "data.multi_hot=history", "data.inner_separator= ", "data.test=0",
            "data.shuffle=false", "model.sequences=history:item", "model.sequence_length=10", "model.attention=12,6"]


@pytest.mark.parametrize("kind,extra", [("dnn", []), ("dlrm", ["model.attention_softmax=true"]), ("deepfm", [])])
def test_sequences_are_weighed_as_in_a_deep_interest_network(probe, tmp_path, kind, extra):
    pytest.importorskip("torch")
    data = [write_histories(tmp_path / name, rows, seed) for name, rows, seed in [("train.csv", 640, 1), ("test.csv", 64, 2)]]
    run = probe(tmp_path / "out", *histories(*data), f"model.kind={kind}", "dense.optimizer=adam", "dense.learning_rate=0.01",
                "embedding.pooling=mean", *extra)
    expected = reference(run, kind, "mean", "adam", softmax=bool(extra))
    got = [*run.state("final"), np.array(run.index["losses"])]
    for name, ours, theirs in zip(["rows", "wide rows", "weights", "losses"], got, expected):
        # Sums over the places of a sequence stand in another order than autograd's over those of one row.
        assert np.abs(ours - theirs).max() < 1e-4, (name, np.abs(ours - theirs).max())
    attention = [p for p in run.index["parameters"] if p["name"].startswith("attention.1.")]
    assert [p["shape"] for p in attention] == [[12, 32], [12], [6, 12], [6], [1, 6], [1]]


def test_attention_finds_what_a_mean_does_not(run_tessera, root, tmp_path):
    data = [write_histories(tmp_path / name, rows, seed) for name, rows, seed in [("train.csv", 12000, 1), ("test.csv", 3000, 2)]]
    settings = [*SMALL, *histories(*data), "model.kind=dnn", "dense.optimizer=adam", "dense.learning_rate=0.003", "train.epochs=6"]

    def auc(*more):
        result = run_tessera("recsys", "train", "--config", root / "examples/recsys/synthetic.toml", *settings, *more, "--json", "-")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["test_auc"]
    assert auc() > auc("model.sequences=", "embedding.pooling=mean") + 0.02


def adult(root):
    """The folder of the real data where this checkout has it."""
    path = root.parent / "shared/data/recsys/adult"
    return path if path.exists() else pytest.skip("the Adult data is not here")


def test_adult_reaches_persias_auc_in_one_epoch(run_tessera, root):
    result = run_tessera("recsys", "train", "--config", root / "examples/recsys/adult.toml", f"data.path={adult(root)}",
                         "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["test_rows"] == 16281 and report["samples"] == 32561
    assert report["test_auc"] > 0.8929  # Persia's own test; raw numbers there, standardised ones here
    assert report["groups"][0]["staleness_max"] <= 10


def test_open_bandit_log_is_read_and_split_by_time(run_tessera, root):
    log = adult(root).parent / "zozo_obd/bts_men.csv"
    result = run_tessera("recsys", "train", "--config", root / "examples/recsys/adult.toml", "data.kind=open_bandit",
                         f"data.path={log}", "embedding.pooling=mean", "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["samples"] == 8000 and report["test_rows"] == 2000
    assert 0.01 < report["test_log_loss"] < 0.1  # 0.7 % clicks: about 0.04 for the mean alone


@pytest.mark.parametrize("overrides,words", [
    (["train.mode=hibrid"], "did you mean 'hybrid'"),
    (["data.path=nowhere"], "nowhere: there is no adult.data"),
    (["model.kind=dlrm"], "embedding.dim=8"),
    (["embedding.optimizer=adagrd"], "did you mean 'adagrad'"),
    (["train.stalenes=3"], "train.staleness"),
    (["train.staleness=-1"], "train.staleness=-1: expected at least 0"),
    (["data.kind=synthetic", "groups.hot.slots=['C99']"], "the data has no slot 'C99'"),
    (["model.sequences=seks:race"], "did you mean 'sex'"),
    (["model.sequences=sex"], "expected HISTORY:ITEM"),
])
def test_mistakes_give_one_readable_error(run_tessera, root, tmp_path, overrides, words):
    result = run_tessera("recsys", "train", "--config", root / "examples/recsys/adult.toml", f"data.path={adult(root)}", *overrides)
    assert result.returncode != 0
    assert result.stderr.count("error:") == 1 and words in result.stderr, result.stderr


def test_the_run_directory_holds_card_lines_and_tensorboard_scalars(run_tessera, root, tmp_path):
    result = run_tessera("recsys", "train", "--config", root / "examples/recsys/synthetic.toml", *SMALL, "model.kind=dnn",
                         f"train.run_dir={tmp_path}", "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    card = json.loads((tmp_path / "run.json").read_text())
    assert card["status"] == "finished" and card["evaluation"]["test_auc"] == report["test_auc"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["samples"] for line in lines) == report["samples"] == 3000
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("test/auc")] == pytest.approx([report["test_auc"]])
    assert len(events.Scalars("train/loss")) == len(lines)
