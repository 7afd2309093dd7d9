"""A server that is asked for three times what it can do: those that it admits get their first token in time, the others
hear no at once, and one tenant that sends ten times as much as the others gets no more than they.

    python bench/serve/overload.py --tessera build/release/tessera --model ../shared/data/models/stories260K \\
        [--seconds 20] [--objective 1.0] [--json FILE]
"""
import asyncio
import random
import time

from client import Server, bench_parser, quantile, run_bench, time_one

TOKENS = 120
TENANTS = {"greedy": 10, "a": 1, "b": 1, "c": 1}


def body(i, tenant):
    return dict(prompt=f"Story {i % 97} of a dog who", max_tokens=TOKENS, ignore_eos=True, seed=i, temperature=1, user=tenant)


async def capacity(server, seconds):
    """Requests a second with as many at once as run at once; their latencies."""
    end, done, latencies = time.monotonic() + seconds, 0, []

    async def client(k):
        nonlocal done
        while time.monotonic() < end:
            answer = await time_one(server, body(k, "warm-up"))
            done += answer.complete
            latencies.append(answer.first_s)

    await asyncio.gather(*(client(k) for k in range(8)))
    return done / seconds, latencies


async def open_loop(server, rate, seconds, draw):
    """Poisson arrivals, whatever the server says; (tenant, answer) of each."""
    names, weights = list(TENANTS), list(TENANTS.values())
    tasks, start, at = [], time.monotonic(), 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0, start + at - time.monotonic()))
        tenant = draw.choices(names, weights)[0]
        tasks.append((tenant, asyncio.create_task(time_one(server, body(len(tasks), tenant)))))
    return [(tenant, await task) for tenant, task in tasks]


def jain(values):
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values))


async def measure(args):
    draw = random.Random(args.seed)
    with Server(args.tessera, args.model, "--max-running", 8, "--kv-tokens", 4096, "--max-waiting", 256, "--ttft-objective",
                args.objective) as server:
        rate, _ = await capacity(server, args.seconds / 2)
        # Three modest tenants ask for a little more than a fair share each, the greedy one for ten times that.
        asked = 13 * 0.3 * rate
        results = await open_loop(server, asked, args.seconds, draw)
        admitted = [(tenant, a) for tenant, a in results if a.complete]
        refused = [a for _, a in results if a.status == 429]
        served = {name: sum(tenant == name for tenant, _ in admitted) for name in TENANTS}
        first = [a.first_s for _, a in admitted]
        return {"capacity_requests_per_s": round(rate, 1), "asked_times": round(asked / rate, 2), "sent": len(results),
                "admitted": len(admitted), "refused": len(refused),
                "other": len(results) - len(admitted) - len(refused), "objective_s": args.objective,
                "in_time": round(sum(s <= args.objective for s in first) / max(len(first), 1), 4),
                "ttft_s": {"median": round(quantile(first, 0.5), 3), "p95": round(quantile(first, 0.95), 3)},
                "refusal_ms": {"median": round(1e3 * quantile([a.end_s for a in refused], 0.5), 2),
                               "p95": round(1e3 * quantile([a.end_s for a in refused], 0.95), 2)},
                "served": served, "fairness": round(jain(list(served.values())), 4)}


if __name__ == "__main__":
    parser = bench_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--objective", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    run_bench(parser, measure)
