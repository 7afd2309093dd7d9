#!/usr/bin/env python3
"""Claim: surviving the death of any process costs at most 10 % of samples/s.

The same job of processes (loader, worker, 2 servers, trainer), by turns with rows, journal, weights and pending gradients in
memory files that outlive their process, and with all of them in private memory (`launch --forget`).

    bench/recsys_protection.py [--tessera PATH] [--repeats N] [--rows N] [--json FILE] [key=value ...]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def samples_per_s(arguments, *options):
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "result.json"
        command = [arguments.tessera, "launch", *options, "--", "recsys", "train", "--config",
                   ROOT / "examples/recsys/synthetic.toml", "--json", result, f"data.train_rows={arguments.rows}",
                   "data.test_rows=1000", "train.threads=1", "train.servers=2", *arguments.settings]
        run = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if run.returncode != 0:
            raise SystemExit(run.stderr.strip())
        return json.loads(result.read_text())["samples_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", default=ROOT / "build/release/tessera")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rows", type=int, default=150000)
    parser.add_argument("--json")
    parser.add_argument("settings", nargs="*", help="key=value of the run")
    arguments = parser.parse_args()
    kept, forgotten = [], []
    for _ in range(arguments.repeats):
        forgotten.append(samples_per_s(arguments, "--forget"))
        kept.append(samples_per_s(arguments))
    ratios = [one / other for one, other in zip(kept, forgotten)]
    ratio = max(kept) / max(forgotten)
    print(f"kept {max(kept):.0f}, private {max(forgotten):.0f} samples/s: {ratio:.3f} of it, best of {arguments.repeats}; pairs "
          f"{min(ratios):.3f} to {max(ratios):.3f}, median {statistics.median(ratios):.3f}; load {os.getloadavg()[0]:.1f}")
    if arguments.json:
        rows = [{"name": "recsys_process_death_protection", "unit": "samples/s", "peer_name": "private memory", "ours": max(kept),
                 "peer": max(forgotten), "ratio": ratio, "higher_is_better": True, "threads": 1, "repeats": arguments.repeats,
                 "pairs": ratios}]
        report = {"machine": os.uname().nodename, "load_average": os.getloadavg()[0], "rows": rows}
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=2))
    return 0 if ratio >= 0.9 else 1


if __name__ == "__main__":
    raise SystemExit(main())
