"""A lean client for benches of the server: asyncio sockets alone, thousands of streams from one thread."""
import argparse
import asyncio
import json
import pathlib
import re
import subprocess
import time
import urllib.request


class Server:
    """`tessera serve` on a free port, until the end of the `with`."""

    def __init__(self, tessera, model, *arguments):
        self.model = pathlib.Path(model).name
        self.process = subprocess.Popen([tessera, "serve", "--model", model, "--port", "0", "--quiet", *map(str, arguments)],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)", line).group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def workers(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def metrics(self):
        """name -> value; labels are left out, so of a family with several the last one counts."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=30) as response:
            lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
        return {line.split("{")[0].split(" ")[0].split(":")[-1]: float(line.rsplit(" ", 1)[1]) for line in lines}

    def rss_mib(self):
        """Of the server and of its workers."""
        def of(pid):
            text = pathlib.Path(f"/proc/{pid}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024
        return of(self.process.pid), sum(map(of, self.workers()))


class Answer:
    """What came of one request: status, text, when the first token and the end came (seconds after the request)."""

    def __init__(self):
        self.status, self.text, self.error = 0, "", None
        self.first_s = self.end_s = self.tokens = None
        self.cancelled = False

    @property
    def complete(self):
        return self.status == 200 and not self.error and not self.cancelled


async def time_one(server, body):
    """Streams one completion without looking into it: for clients that must not become the bottleneck."""
    answer, start = Answer(), time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    try:
        writer.write(request_bytes(server, body))
        answer.status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
        while part := await reader.read(1 << 16):
            answer.first_s = answer.first_s or time.monotonic() - start
            if b'"error"' in part:
                answer.error = part
        return answer
    finally:
        answer.end_s = time.monotonic() - start
        writer.close()


def request_bytes(server, body):
    data = json.dumps({"model": server.model, "stream": True, **body}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(data) + data)


async def complete(server, body, leave_after=None):
    """Streams one completion. `leave_after`: closes the connection after so many events (0: at once)."""
    answer, start = Answer(), time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    try:
        writer.write(request_bytes(server, body))
        await writer.drain()
        if leave_after == 0:
            answer.cancelled = True
            return answer
        answer.status = int((await reader.readline()).split()[1])
        events = 0
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                break
            if not line.startswith((b"data: ", b"{")):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            answer.first_s = answer.first_s or time.monotonic() - start
            if "error" in event:
                answer.error = event["error"]
                break
            answer.text += "".join(choice["text"] for choice in event["choices"])
            events += 1
            if leave_after is not None and events >= leave_after:
                answer.cancelled = True
                return answer
        return answer
    finally:
        answer.end_s = time.monotonic() - start
        writer.close()


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def load_average():
    return pathlib.Path("/proc/loadavg").read_text().split()[:3]


def bench_parser(text):
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", default="build/release/tessera")
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", help="write the figures to this file too")
    return parser


def run_bench(parser, measure):
    """Measures with the given arguments; prints the figures with the load average, and writes them where asked."""
    arguments = parser.parse_args()
    text = json.dumps({"load_average": load_average(), **asyncio.run(measure(arguments))}, indent=1)
    print(text)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text)
