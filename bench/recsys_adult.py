#!/usr/bin/env python3
"""Claim: embeddings up to 50 batches late cost nothing on Adult, and the test can see a fault: 200 batches are worse.

Paired seeds: for each seed all bounds start from the same weights and see the same rows in the same order. Runs are
deterministic, so gradients come exactly as late as the bound allows.

    bench/recsys_adult.py DATA_DIR [--tessera PATH] [--seeds N] [--epochs N] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOUNDS = [0, 1, 10, 50, 200]


def test_auc(arguments, seed, bound):
    command = [arguments.tessera, "recsys", "train", "--config", ROOT / "examples/recsys/adult.toml", "--json", "-",
               f"data.path={arguments.data}", f"data.seed={seed}", f"train.seed={seed}", "train.deterministic=true",
               f"train.epochs={arguments.epochs}", "train.threads=1", "train.staleness_warmup=0",
               "train.mode=" + ("hybrid" if bound else "sync"), f"train.staleness={bound}"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(result.stderr.strip())
    report = json.loads(result.stdout)
    assert report["groups"][0]["staleness_max"] == min(bound, report["steps"] - 1)
    return report["test_auc"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with adult.data and adult.test")
    parser.add_argument("--tessera", default=ROOT / "build/release/tessera")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    aucs = {bound: [test_auc(arguments, seed, bound) for seed in range(1, arguments.seeds + 1)] for bound in BOUNDS}
    sync = statistics.mean(aucs[0])
    rows = []
    for bound in BOUNDS:
        mean = statistics.mean(aucs[bound])
        deviation = statistics.stdev(aucs[bound]) if arguments.seeds > 1 else 0.0
        paired = [auc - base for auc, base in zip(aucs[bound], aucs[0])]
        print(f"staleness {bound:3}: test AUC {mean:.4f} +- {deviation:.4f}, against sync {mean - sync:+.4f} "
              f"(pairs {min(paired):+.4f} to {max(paired):+.4f})")
        rows.append({"name": f"adult_auc_staleness_{bound}", "unit": "AUC", "peer_name": "sync", "ours": mean,
                     "peer": sync, "ratio": mean / sync, "higher_is_better": True, "threads": 1,
                     "repeats": arguments.seeds, "aucs": aucs[bound]})
    kept = all(abs(statistics.mean(aucs[bound]) - sync) <= 0.001 for bound in BOUNDS if 0 < bound <= 50)
    high = all(statistics.mean(aucs[bound]) >= 0.899 for bound in BOUNDS if bound <= 50)
    seen = statistics.mean(aucs[200]) < sync - 0.003
    print(f"within 0.001 of sync up to 50: {kept}; at least 0.899: {high}; 200 visibly worse: {seen}")
    if arguments.json:
        report = {"machine": os.uname().nodename, "load_average": os.getloadavg()[0], "rows": rows}
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=2))
    return 0 if kept and high and seen else 1


if __name__ == "__main__":
    raise SystemExit(main())
