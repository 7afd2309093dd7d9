#!/usr/bin/env python3
"""Claim: surviving the death of any process costs at most 10 % of samples/s; and what surviving the death of a host costs.

The same job of processes (loader, worker, 2 servers, trainer), by turns with rows, journal, weights and pending gradients in
memory files that outlive their process, and with all of them in private memory (`launch --forget`). Then the same job over two
launchers, which stand for two hosts (server:1 with the replica of server:0 in the second), by turns without replicas and with them.

    bench/recsys_protection.py [--tessera PATH] [--repeats N] [--rows N] [--json FILE] [key=value ...]
"""
import argparse
import json
import os
import pathlib
import socket
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


def samples_per_s_of_two(arguments, replicas):
    """The job over two launchers."""
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "result.json"
        job = ["--", "recsys", "train", "--config", ROOT / "examples/recsys/synthetic.toml", f"data.train_rows={arguments.rows}",
               "data.test_rows=1000", "train.threads=1", "train.servers=2", f"train.replicas={replicas}", *arguments.settings]
        here, there = (",replica:1", ",replica:0") if replicas else ("", "")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "TESSERA_TOKEN": "bench"}
        second = [arguments.tessera, "launch", "--join", f"127.0.0.1:{port}", "--roles", "server:1" + there, *job]
        first = [arguments.tessera, "launch", "--port", port, "--roles", "loader,worker:0,server:0,trainer:0" + here, *job[:5],
                 "--json", result, *job[5:]]
        joined = subprocess.Popen([str(word) for word in second], env=environment, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        run = subprocess.run([str(word) for word in first], capture_output=True, text=True, env=environment)
        joined.wait()
        if run.returncode != 0:
            raise SystemExit(run.stderr.strip())
        return json.loads(result.read_text())["samples_per_s"]


def compare(name, peer_name, arguments, ours, peer):
    """Two ways to run the job, by turns; a row of the report."""
    rates = [(peer(), ours()) for _ in range(arguments.repeats)]
    ratios = [mine / other for other, mine in rates]
    best, best_peer = max(mine for _, mine in rates), max(other for other, _ in rates)
    ratio = best / best_peer
    print(f"{name}: {best:.0f}, {peer_name} {best_peer:.0f} samples/s: {ratio:.3f} of it, best of {arguments.repeats}; pairs "
          f"{min(ratios):.3f} to {max(ratios):.3f}, median {statistics.median(ratios):.3f}; load {os.getloadavg()[0]:.1f}",
          flush=True)
    return {"name": name, "unit": "samples/s", "peer_name": peer_name, "ours": best, "peer": best_peer, "ratio": ratio,
            "higher_is_better": True, "threads": 1, "repeats": arguments.repeats, "pairs": ratios}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", default=ROOT / "build/release/tessera")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rows", type=int, default=150000)
    parser.add_argument("--only", choices=["process", "host"])
    parser.add_argument("--json")
    parser.add_argument("settings", nargs="*", help="key=value of the run")
    arguments = parser.parse_args()
    rows = []
    if arguments.only != "host":
        rows.append(compare("recsys_process_death_protection", "private memory", arguments, lambda: samples_per_s(arguments),
                            lambda: samples_per_s(arguments, "--forget")))
    if arguments.only != "process":
        rows.append(compare("recsys_host_death_protection", "no replicas", arguments, lambda: samples_per_s_of_two(arguments, 1),
                            lambda: samples_per_s_of_two(arguments, 0)))
    if arguments.json:
        report = {"machine": os.uname().nodename, "load_average": os.getloadavg()[0], "rows": rows}
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=2))
    return 0 if all(row["ratio"] >= 0.9 for row in rows if row["peer_name"] == "private memory") else 1


if __name__ == "__main__":
    raise SystemExit(main())
