"""Heavy bodies and the others: for each of a few bodies of megabytes the time until it is answered, and the longest that a /health asked for every
2 ms had to wait meanwhile. Target: a schema of 5,000 properties in under 1 s, nobody held for more than 50 ms.

    python bench/serve/big_bodies.py --tessera build/release/tessera --model ../shared/data/models/stories260K
"""
import http.client
import json
import os
import threading
import time

from client import Server, bench_parser


def bodies(name):
    schema = {"type": "object", "properties": {f"property_{i}": {"type": "string", "description": "x" * 900} for i in range(5000)}}
    required = {**schema, "required": list(schema["properties"]), "additionalProperties": False}
    sampling = {"max_tokens": 1, "guided_json": schema}
    infer = [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["a"]},
             {"name": "sampling_parameters", "datatype": "BYTES", "shape": [1], "data": [json.dumps(sampling)]}]
    yield "schema of 5,000 optional properties", "/v1/completions", {"model": name, "prompt": "a", **sampling}
    yield "schema of 5,000 required properties", "/v1/completions", {"model": name, "prompt": "a", "max_tokens": 1, "guided_json": required}
    yield "the same to KServe's generate", f"/v2/models/{name}/generate", {"text_input": "a", "parameters": sampling}
    yield "the same to KServe's infer", f"/v2/models/{name}/infer", {"inputs": infer}
    yield "index of 6 MB", "/v2/repository/index", {"x": list(range(800_000))}
    yield "prompt of 5 MB", "/v1/completions", {"model": name, "prompt": "word " * 1_000_000, "max_tokens": 1}


def poll(port, stop, waits):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while not stop.is_set():
        begin = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        waits.append(time.perf_counter() - begin)
        time.sleep(0.002)


def ask(port, path, data):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, data)
    response = connection.getresponse()
    response.read()
    return response.status


def main():
    args = bench_parser(__doc__).parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}\n{'body':40} {'MB':>5} {'status':>6} {'answered':>9} {'longest wait of others':>23}")
    with Server(args.tessera, args.model) as server:
        for name, path, body in bodies(server.model):
            data, stop, waits = json.dumps(body).encode(), threading.Event(), []
            poller = threading.Thread(target=poll, args=(server.port, stop, waits))
            poller.start()
            begin = time.perf_counter()
            status = ask(server.port, path, data)
            seconds = time.perf_counter() - begin
            stop.set()
            poller.join()
            print(f"{name:40} {len(data) / 1e6:5.1f} {status:6} {seconds:7.2f} s {max(waits) * 1e3:20.0f} ms")


if __name__ == "__main__":
    main()
