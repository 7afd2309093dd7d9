"""Samples per second and AUC of `tessera recsys train` beside TorchRec with fused table-batched embeddings, from end to
end: the same Criteo-shaped file, the same DLRM, the same optimizers, two cores.

    python bench/recsys_torchrec.py [--tessera PATH] [--rows N] [--batch B] [--seeds S] [--set KEY=VALUE ...]

The interpreter needs torch 2.13, and beside it `pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 tensordict
torchmetrics==1.0.3 pyre-extensions iopath tqdm lightning-utilities pyvers portalocker typing-inspect mypy-extensions cloudpickle
orjson`. TorchRec gets its rows as tensors in memory, with ids numbered densely beforehand; tessera reads the text and
hashes in the time that is measured. Systems take turns; the mean over seeds of AUC and the best rate count.
"""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

import numpy as np

SLOTS = [40000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000, 30679, 40528, 10, 2209, 11938, 155, 4, 976, 14, 40000, 40000,
         40000, 5901, 12973, 108, 36]
DIM, BOTTOM, TOP, ROW_RATE, DENSE_RATE = 16, (64, 16), (128, 64), 0.05, 1e-3


def write_log(path, rows, seed=1):
    """A log in Criteo's form with a planted logistic truth; ids by Zipf's law."""
    random = np.random.default_rng(seed)
    counts = random.poisson(3, (rows, 13))
    logit = -1.2 + (np.log1p(counts) - 1.2) @ random.normal(0, 0.25, 13)
    ids = np.empty((rows, 26), np.int64)
    for s, size in enumerate(SLOTS):
        weights = np.arange(1, size + 1) ** -1.05
        ids[:, s] = random.choice(size, rows, p=weights / weights.sum())
        logit += random.normal(0, 0.25, size)[ids[:, s]]
    labels = random.random(rows) < 1 / (1 + np.exp(-logit))
    with open(path, "w") as file:
        for label, numbers, row in zip(labels, counts, ids):
            fields = [str(int(label)), *map(str, numbers), *(f"{(s << 24) | i:08x}" for s, i in enumerate(row))]
            file.write("\t".join(fields) + "\n")


def read_log(path):
    with open(path) as file:
        fields = [line.rstrip("\n").split("\t") for line in file]
    numbers = np.log1p(np.array([row[1:14] for row in fields], np.float32))
    ids = np.array([[int(field, 16) & 0xFFFFFF for field in row[14:]] for row in fields], np.int64)
    return np.array([float(row[0]) for row in fields], np.float32), numbers, ids


def auc_of(scores, labels):
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    _, counts = np.unique(scores[order], return_counts=True)
    last = np.cumsum(counts)
    ranks[order] = np.repeat(last - (counts - 1) / 2, counts)
    positive = labels > 0
    pairs = positive.sum() * (len(labels) - positive.sum())
    return float((ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs)


def run_torchrec(data, train_rows, batch, seed, threads):
    import torch
    import torchrec
    from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection

    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    labels, numbers, ids = (torch.from_numpy(array) for array in data)
    names = [f"c{s}" for s in range(26)]
    tables = [torchrec.EmbeddingBagConfig(name=f"t{s}", embedding_dim=DIM, num_embeddings=size, feature_names=[names[s]],
                                          init_fn=lambda weight: torch.nn.init.uniform_(weight, -0.01, 0.01))
              for s, size in enumerate(SLOTS)]
    rows = FusedEmbeddingBagCollection(tables, optimizer_type=torchrec.optim.RowWiseAdagrad,
                                       optimizer_kwargs={"lr": ROW_RATE, "eps": 1e-10}, device=torch.device("cpu"))

    def mlp(sizes, last):
        layers = []
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            layers += [torch.nn.Linear(a, b)] + ([torch.nn.ReLU()] if last or i + 2 < len(sizes) else [])
        return torch.nn.Sequential(*layers)

    bottom, top = mlp((13, *BOTTOM), True), mlp((DIM + 27 * 26 // 2, *TOP, 1), False)
    pairs = torch.tril_indices(27, 27, offset=-1)
    optimizer = torch.optim.Adam([*bottom.parameters(), *top.parameters()], lr=DENSE_RATE, fused=True)

    def forward(first, last):
        part = ids[first:last]
        features = torchrec.KeyedJaggedTensor.from_lengths_sync(
            keys=names, values=part.t().reshape(-1), lengths=torch.ones(part.numel(), dtype=torch.int32))
        pooled = rows(features).values().view(-1, 26, DIM)
        x = bottom(numbers[first:last])
        z = torch.cat([x.unsqueeze(1), pooled], 1)
        dots = torch.bmm(z, z.transpose(1, 2))[:, pairs[0], pairs[1]]
        return top(torch.cat([x, dots], 1)).squeeze(1)

    start = time.perf_counter()
    for first in range(0, train_rows, batch):
        last = min(first + batch, train_rows)
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(forward(first, last), labels[first:last]).backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        scores = torch.cat([forward(first, min(first + 2048, len(labels))) for first in range(train_rows, len(labels), 2048)])
    return train_rows / seconds, auc_of(scores.numpy(), data[0][train_rows:])


def run_tessera(tessera, files, batch, seed, threads, folder, more):
    result = folder / "result.json"
    options = ["data.kind=criteo_kaggle", f"data.path={files[0]}", f"data.test_path={files[1]}", "data.test=0", "model.kind=dlrm",
               "model.bottom=" + ",".join(map(str, BOTTOM)), "model.top=" + ",".join(map(str, TOP)), f"embedding.dim={DIM}",
               "embedding.optimizer=adagrad-row", f"embedding.learning_rate={ROW_RATE}", "dense.optimizer=adam",
               f"dense.learning_rate={DENSE_RATE}", f"train.batch={batch}", f"train.seed={seed}", f"train.threads={threads}", *more]
    config = folder / "empty.toml"
    config.write_text("")
    subprocess.run([tessera, "recsys", "train", "--config", config, "--json", result, *options], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    read = json.loads(result.read_text())
    return read["samples_per_s"], read["test_auc"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", default=pathlib.Path(__file__).parents[1] / "build/release/tessera")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--test-rows", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of tessera's configuration, as train.mode=sync")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="of the dense network; the best counts for each system")
    parser.add_argument("--folder", help="keeps the log; a temporary one else")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder or tempfile.mkdtemp())
    files = [folder / f"train-{arguments.rows}.txt", folder / f"test-{arguments.rows}-{arguments.test_rows}.txt"]
    if not files[1].exists():
        whole = folder / "whole.txt"
        write_log(whole, arguments.rows + arguments.test_rows)
        with open(whole) as file:
            lines = file.readlines()
        files[0].write_text("".join(lines[:arguments.rows]))
        files[1].write_text("".join(lines[arguments.rows:]))
        whole.unlink()
    parts = [read_log(file) for file in files]
    data = [np.concatenate(pair) for pair in zip(*parts)]
    rates, aucs = {"tessera": [], "torchrec": []}, {"tessera": [], "torchrec": []}
    for seed in range(1, arguments.seeds + 1):
        for threads in arguments.threads:
            runs = {"tessera": lambda: run_tessera(arguments.tessera, files, arguments.batch, seed, threads, folder, arguments.set),
                    "torchrec": lambda: run_torchrec(data, arguments.rows, arguments.batch, seed, threads)}
            for name, run in runs.items():
                rate, auc = run()
                print(f"seed {seed}, {threads} threads: {name:9} {rate:10,.0f} samples/s, AUC {auc:.4f}, load {os.getloadavg()[0]:.1f}", flush=True)
                rates[name].append(rate)
                aucs[name].append(auc)
    best, mean = {name: max(values) for name, values in rates.items()}, {name: float(np.mean(values)) for name, values in aucs.items()}
    ratio, gap = best["tessera"] / best["torchrec"], mean["tessera"] - mean["torchrec"]
    print(f"tessera {best['tessera']:,.0f} samples/s, torchrec {best['torchrec']:,.0f}: ratio {ratio:.2f} (target 1.5); "
          f"mean AUC {mean['tessera']:.4f} and {mean['torchrec']:.4f}: {gap:+.4f} (target within 0.001)")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"samples_per_s": best, "auc": mean, "ratio": ratio, "auc_gap": gap}))


if __name__ == "__main__":
    main()
