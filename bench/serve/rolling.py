"""Rolling restarts under load: two servers behind a client that asks whoever is ready. One after the other gets SIGTERM,
finishes what it has, ends with status 0 and is started again. No request may fail, and none is sent twice.

    python bench/serve/rolling.py --tessera build/release/tessera --model ../shared/data/models/stories260K [--restarts 20]
"""
import asyncio
import signal
import time

from client import Server, bench_parser, complete, quantile, run_bench

OPTIONS = "--max-running", 8, "--kv-tokens", 4096, "--drain-timeout", 60


async def ask_forever(replicas, stop, answers, k):
    """One client: the next request goes to a replica that is in service."""
    i = 0
    while not stop.is_set():
        names = [name for name, server in replicas.items() if server]
        server = replicas[names[(i + k) % len(names)]]
        answers.append(await complete(server, dict(prompt=f"Once {k} upon a time", max_tokens=20 + i % 80, seed=i, temperature=1)))
        i += 1


async def measure(args):
    def start():
        return Server(args.tessera, args.model, *OPTIONS)

    replicas = {"a": start(), "b": start()}
    stop, answers, drains = asyncio.Event(), [], []
    clients = [asyncio.create_task(ask_forever(replicas, stop, answers, k)) for k in range(args.clients)]
    try:
        for restart in range(args.restarts):
            await asyncio.sleep(0.5)
            name = "ab"[restart % 2]
            old = replicas[name]
            replicas[name] = None  # what a readiness probe does: no new requests
            old.process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            status = await asyncio.to_thread(old.process.wait)
            drains.append(time.monotonic() - begin)
            assert status == 0, f"restart {restart}: exit status {status}"
            replicas[name] = await asyncio.to_thread(start)
        stop.set()
        await asyncio.gather(*clients)
    finally:
        for server in replicas.values():
            if server:
                server.process.kill()
    failed = [a for a in answers if not a.complete]
    return {"restarts": args.restarts, "requests": len(answers), "failed": len(failed),
            "failures": [(a.status, str(a.error)) for a in failed[:5]], "drain_s": {"median": round(quantile(drains, 0.5), 2),
                                                                                   "max": round(max(drains), 2)}}


if __name__ == "__main__":
    parser = bench_parser(__doc__)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--clients", type=int, default=12)
    run_bench(parser, measure)
