"""Replays a trace of requests against `tessera serve` on this machine, and compares time to first token and time per
output token with what `tessera plan serve` predicted for it from `tessera calibrate --serve` of the minutes before and
after (the mean of both: the speed of a shared machine moves meanwhile, and "drift" says by how much).

    python bench/serve/replay.py --model DIR --precision int8 --trace AzureLLMInferenceTrace_conv.csv
        [--requests 60] [--load 0.6] [--shorter 4] [--rounds 1] [--json F]

Requests keep their order, lengths (divided by --shorter) and relative times; times are stretched so that the tokens
of a second are --load of what the machine can compute, by the planner's own figure.
"""
import asyncio
import csv
import datetime
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

from client import Answer, Server, bench_parser, load_average, quantile, request_bytes, run_bench


def read_trace(path, requests, shorter):
    """(seconds since the first, prompt tokens, answer tokens), of an Azure CSV or Mooncake JSON lines."""
    rows = []
    with open(path) as file:
        if path.suffix == ".jsonl":
            rows = [(r["timestamp"] / 1000, r["input_length"], r["output_length"]) for r in map(json.loads, file)]
        else:
            for row in csv.DictReader(file):
                at = datetime.datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
                rows.append((at, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
    rows = rows[:requests]
    return [(at - rows[0][0], max(1, prompt // shorter), max(2, answer // shorter)) for at, prompt, answer in rows]


def write_trace(path, rows):
    start = datetime.datetime(2026, 1, 1)
    with open(path, "w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for at, prompt, answer in rows:
            file.write(f"{(start + datetime.timedelta(seconds=at)).strftime('%Y-%m-%d %H:%M:%S.%f')},{prompt},{answer}\n")


def run_json(*command):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        result = subprocess.run([*map(str, command), "--json", file.name], capture_output=True, text=True)
        if result.returncode and not pathlib.Path(file.name).stat().st_size:
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
        return json.loads(pathlib.Path(file.name).read_text())


def planned(arguments, host, rows):
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder) / "trace.csv"
        write_trace(trace, rows)
        found = run_json(arguments.tessera, "plan", "serve", "--model", pathlib.Path(arguments.model) / "config.json", "--cluster", host,
                         "--precision", arguments.precision, "--layout", "tp=1", "--trace", trace)
    return found


def stretched(arguments, host, rows):
    """Times so that requests come at `load` of the rate that the planner says the server can keep up with."""
    too_fast = [(i * 1e-4, prompt, answer) for i, (_, prompt, answer) in enumerate(rows)]
    most = planned(arguments, host, too_fast)["infeasible"][0]["available"]
    factor = len(rows) / (most * arguments.load) / rows[-1][0]
    return [(at * factor, prompt, answer) for at, prompt, answer in rows], factor


async def one(server, at, prompt, answer, seed, start):
    await asyncio.sleep(max(0, at - (time.monotonic() - start)))
    ids = random.Random(seed).choices(range(10, 1000), k=prompt)
    body = {"prompt": ids, "max_tokens": answer, "ignore_eos": True, "temperature": 0, "stream_options": {"include_usage": True}}
    sent, result = time.monotonic(), Answer()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    writer.write(request_bytes(server, body))
    result.status = int((await reader.readline()).split()[1])
    while line := await reader.readline():
        if line.startswith(b"data: [DONE]"):
            break
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[6:])
        result.tokens = (event.get("usage") or {}).get("completion_tokens", result.tokens)
        if event.get("choices"):
            result.first_s = result.first_s or time.monotonic() - sent
            result.end_s = time.monotonic() - sent
    writer.close()
    assert result.status == 200 and result.tokens == answer, (result.status, result.tokens, answer)
    return result.first_s * 1000, (result.end_s - result.first_s) * 1000 / (answer - 1)


async def replay(arguments, rows):
    with Server(arguments.tessera, arguments.model, "--dtype", "bf16") as server:
        await one(server, 0, 600, 8, -1, time.monotonic())
        start = time.monotonic()
        return await asyncio.gather(*(one(server, *row, seed, start) for seed, row in enumerate(rows)))


QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95}


def calibrated(arguments, host):
    return run_json(arguments.tessera, "calibrate", "--seconds", 1, "--serve", arguments.model, "--out", host)["serving"]


def simulated(arguments, host, timed):
    results = planned(arguments, host, timed)["results"]
    return [one["simulated"] for one in results[:1]]  # none: a machine as slow as this one is now could not keep up


def comparison(predictions, measured):
    table = {}
    for column, name in enumerate(("ttft_ms", "tpot_ms")):
        values = [pair[column] for pair in measured]
        seen = {"mean": statistics.mean(values)} | {q: quantile(values, share) for q, share in QUANTILES.items()}
        expected = {q: statistics.mean(one[name][q] for one in predictions) for q in seen}
        table[name] = {q: {"measured": seen[q], "planned": expected[q], "error": expected[q] / seen[q] - 1} for q in seen}
    return table


async def measure(arguments):
    rows = read_trace(pathlib.Path(arguments.trace), arguments.requests, arguments.shorter)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        host = pathlib.Path(folder) / "host.toml"
        for _ in range(arguments.rounds):
            before = calibrated(arguments, host)
            timed, factor = stretched(arguments, host, rows)
            predictions = simulated(arguments, host, timed)
            measured = await replay(arguments, timed)
            after = calibrated(arguments, host)
            predictions += simulated(arguments, host, timed)
            drift = statistics.median(b["timed_s"] / a["timed_s"] for a, b in zip(before["loads"], after["loads"]))
            rounds.append({"load_average": load_average(), "fit": {k: before[k] for k in ("mean_error", "max_error")}, "drift": drift - 1,
                           "stretched": factor, "seconds": timed[-1][0], "of": comparison(predictions, measured)})
    return {"trace": pathlib.Path(arguments.trace).name, "requests": len(rows), "shorter": arguments.shorter, "load": arguments.load,
            "rounds": rounds}


if __name__ == "__main__":
    parser = bench_parser(__doc__)
    parser.add_argument("--precision", default="bf16", help="of the model's weights, as `tessera plan serve` names it")
    parser.add_argument("--trace", required=True)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--shorter", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    run_bench(parser, measure)
