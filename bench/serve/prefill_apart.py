"""What long prompts do to answers under way: the gaps between their tokens, with prompts and answers in one process of all
threads, and with a prefill worker beside a decoder that share the same threads. The same requests on both.

    python bench/serve/prefill_apart.py --model DIR [--prompt-tokens 1024] [--streams 4] [--threads 2] [--json FILE]

DIR: any served model; bench/serve/make_model.py makes one with random weights. Prompts are token ids.
"""
import asyncio
import random
import time

from client import Server, bench_parser, quantile, request_bytes, run_bench


async def stream(server, body, times):
    """Appends when each event came, in seconds after the request."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    try:
        writer.write(request_bytes(server, body))
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                assert b'"error"' not in line, line
                times.append(time.monotonic() - start)
    finally:
        writer.close()


async def load(server, args):
    """Streams that decode all the time; long prompts come one after the other, each with a short answer."""
    draw = random.Random(args.seed)

    def prompt(tokens):
        return [draw.randrange(10, args.vocab) for _ in range(tokens)]

    decoding = [[] for _ in range(args.streams)]
    tasks = [asyncio.create_task(stream(server, dict(prompt=prompt(16), max_tokens=args.tokens, ignore_eos=True), times))
             for times in decoding]
    while any(len(times) < 4 for times in decoding):
        await asyncio.sleep(0.01)
    first = []
    for _ in range(args.prompts):
        times = []
        await stream(server, dict(prompt=prompt(args.prompt_tokens), max_tokens=2, ignore_eos=True), times)
        first.append(times[0])
        await asyncio.sleep(0.2)
    counts = [len(times) for times in decoding]
    assert all(not task.done() for task in tasks), f"the streams ended before the prompts; use --tokens above {args.tokens}"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gaps = [b - a for times in decoding for a, b in zip(times[3:], times[4:])]
    return {"gap_ms": {name: round(1e3 * quantile(gaps, q), 1) for name, q in (("median", 0.5), ("p95", 0.95), ("longest", 1))},
            "first_token_of_long_prompts_s": round(quantile(first, 0.5), 2),
            "tokens_per_s_of_streams": round(sum(counts) / max(times[-1] for times in decoding), 1)}


async def measure(args):
    common = ["--kv-tokens", args.streams * args.tokens + 4 * args.prompt_tokens, "--dtype", args.dtype, "--max-batch-tokens", args.chunk]
    apart = "--prefill-workers", 1, "--prefill-from", 128, "--threads", max(1, args.threads // 2)
    results = {"together": [], "apart": []}
    for _ in range(args.repeats):
        for name, options in (("together", ("--threads", args.threads)), ("apart", apart)):
            with Server(args.tessera, args.model, *common, *options) as server:
                figures, metrics = await load(server, args), server.metrics()
                figures["prompts_from_worker"] = metrics["prefills_received_total"]
                figures["mib_from_worker"] = round(metrics["prefill_bytes_received_total"] / 2**20, 1)
                results[name].append(figures)
    return {"prompt_tokens": args.prompt_tokens, "streams": args.streams, "threads": args.threads, **results}


if __name__ == "__main__":
    parser = bench_parser(__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2, help="turn by turn")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1500, help="of each stream at most; it is left when the prompts are done")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=512, help="tokens of one step")
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--seed", type=int, default=1)
    run_bench(parser, measure)
