"""Thousands of requests, half of them cancelled at random points, and a worker that is killed on the way: all KV blocks
come back, memory does not grow, no other request fails, and answers are those of a quiet server.

    python bench/serve/soak.py --tessera build/release/tessera --model ../shared/data/models/stories260K \\
        [--requests 10000] [--concurrency 64] [--layout tp=2] [--kills 1] [--json FILE]
"""
import argparse
import asyncio
import os
import random
import signal
import time

from client import Server, bench_parser, complete, quantile, run_bench

STORY = "Once upon a time there was a little girl who had a red ball. She played with it every day in the park, and "


def job(i):
    """One of 200 kinds: common and own beginnings, greedy and drawn."""
    kind = i % 200
    return dict(prompt=(STORY if kind % 2 else "") + "Tim saw a big dog" * (kind % 5 + 1), max_tokens=4 + kind % 40,
                temperature=[0, 0.9][kind % 2], seed=kind)


async def run_all(server, args, random_source, kill_at):
    limit, answers = asyncio.Semaphore(args.concurrency), [None] * args.requests
    done = 0

    async def one(i):
        nonlocal done
        async with limit:
            leaves = random_source[i]
            answers[i] = await complete(server, job(i), leave_after=leaves)
            done += 1
            if done in kill_at:
                os.kill(server.workers()[0], signal.SIGKILL)

    await asyncio.gather(*(one(i) for i in range(args.requests)))
    return answers


async def cancel_latencies(server, count):
    """Seconds from the client's leaving to free blocks, of one long request at a time; and the length of a step."""
    seconds = []
    for i in range(count):
        await complete(server, dict(prompt=STORY, max_tokens=400, seed=i, temperature=1, ignore_eos=True), leave_after=5)
        start = time.monotonic()
        while server.metrics()["kv_cache_usage_perc"] > 0:
            await asyncio.sleep(0)
        seconds.append(time.monotonic() - start)
    return seconds


async def measure(args):
    with Server(args.tessera, args.model, "--layout", args.layout, "--max-running", 16, "--kv-tokens", 4096,
                "--max-waiting", 100000, "--kv-host-tokens", 4096, "--max-batch-tokens", 128) as server:
        expected = [await complete(server, job(i)) for i in range(200)]
        warm = argparse.Namespace(**{**vars(args), "requests": max(200, args.requests // 10)})
        draw = random.Random(args.seed)
        # Some answers end before their point comes: about half of all are cancelled.
        points = [draw.choice([0, 1, 2, 5, 10, 20]) if draw.random() < 0.58 else None for _ in range(args.requests)]
        await run_all(server, warm, points, set())
        before = server.rss_mib()
        kill_at = {(k + 1) * args.requests // (args.kills + 1) for k in range(args.kills)} if args.layout != "tp=1" else set()
        start = time.monotonic()
        answers = await run_all(server, args, points, kill_at)
        seconds = time.monotonic() - start
        freed = time.monotonic()
        while server.metrics()["kv_cache_usage_perc"] > 0 and time.monotonic() - freed < 30:
            await asyncio.sleep(0.01)
        freed_s = time.monotonic() - freed
        after = server.rss_mib()
        cancels = await cancel_latencies(server, 50)
        metrics = server.metrics()
        wrong = [i for i, a in enumerate(answers) if a.complete and a.text != expected[i % 200].text]
        failed = [i for i, a in enumerate(answers) if not a.complete and not a.cancelled]
        return {"requests": args.requests, "cancelled": sum(a.cancelled for a in answers), "failed": len(failed),
                "wrong": len(wrong), "seconds": round(seconds, 1), "kills": len(kill_at),
                "worker_losses": metrics["worker_losses_total"], "retries": metrics["request_retries_total"],
                "blocks_free_after_s": round(freed_s, 3),
                "server_mib": [round(before[0], 1), round(after[0], 1)],
                "server_growth": round(after[0] / before[0] - 1, 4),
                "workers_mib": [round(before[1], 1), round(after[1], 1)],
                "cancel_to_free_ms": {q: round(1e3 * quantile(cancels, v), 1) for q, v in
                                      {"median": 0.5, "p95": 0.95, "max": 1}.items()},
                "step_ms": round(1e3 * metrics["time_per_output_token_seconds_sum"] /
                                 max(metrics["time_per_output_token_seconds_count"], 1), 2)}


if __name__ == "__main__":
    parser = bench_parser(__doc__)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--layout", default="tp=2")
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    run_bench(parser, measure)
