"""Worker processes that are killed or stopped under load: no request is lost, and the server says how it is."""
import os
import pathlib
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_engine_test import mixed_jobs
from serve_openai_test import GOOD, MODEL, Server, post

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")

NOTICED_S = 1.0  # from a worker's end to "not ready"
BACK_S = 60  # a process starts, links libtorch and loads; the machine may be busy


class Team(Server):
    """A server over two processes."""

    def __init__(self, tessera, *arguments, model=MODEL):
        layout = () if "--layout" in arguments else ("--layout", "tp=2")
        super().__init__(tessera, "--quiet", *layout, *arguments, model=model)

    def workers(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return {int(pid) for task in tasks for pid in task.read_text().split()}

    def ready(self):
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=10) as response:
                return response.status == 200
        except urllib.error.HTTPError as error:
            assert error.code == 503, error
            self.reason = error.read().decode()
            return False

    def wait_ready(self, expected, seconds):
        start = time.monotonic()
        while self.ready() != expected:
            assert time.monotonic() - start < seconds, f"ready is not {expected} after {seconds} s"
            time.sleep(0.005)
        return time.monotonic() - start

    def strike(self, number):
        """Sends a signal to a worker; returns it and the seconds until the server knew."""
        worker = max(self.workers())
        os.kill(worker, number)
        return worker, self.wait_ready(False, NOTICED_S)

    def stream(self, job):
        parts = list(self.client.completions.create(model=self.name, stream=True, **job))
        return "".join(p.choices[0].text for p in parts), parts[-1].choices[0].finish_reason


def wait_for_tokens(server, more):
    goal = server.metric("generation_tokens_total") + more
    while server.metric("generation_tokens_total") < goal:
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_costs_no_answer(tessera, number):
    """Streams go on where they were: every answer equals that of an undisturbed server."""
    jobs = mixed_jobs()[:40]
    with Team(tessera, "--max-running", "12", "--max-batch-tokens", "48", "--kv-tokens", "1024") as server:
        expected = [server.stream(job) for job in jobs]
        with ThreadPoolExecutor(len(jobs)) as pool:
            answers = pool.map(server.stream, jobs)
            wait_for_tokens(server, 100)
            worker, noticed_s = server.strike(number)
            assert "rank 1 of 2" in server.reason and ("signal 9" in server.reason or "sign of life" in server.reason)
            server.wait_ready(True, BACK_S)
            assert list(answers) == expected
        print(f"noticed after {noticed_s:.3f} s")
        assert server.workers().isdisjoint({worker}) and len(server.workers()) == 1
        server.wait_for("kv_cache_usage_perc", 0)
        assert server.process.poll() is None


def test_a_worker_that_is_killed_while_nothing_runs_is_replaced_at_once(tessera):
    with Team(tessera) as server:
        expected = server.text(max_tokens=30)
        server.strike(signal.SIGKILL)
        server.wait_ready(True, BACK_S)
        assert server.text(max_tokens=30) == expected


def test_a_worker_that_dies_again_while_it_comes_back_is_replaced_again(tessera):
    with Team(tessera) as server, ThreadPoolExecutor(1) as pool:
        expected = server.text(max_tokens=400, temperature=1, seed=3)
        answer = pool.submit(server.text, max_tokens=400, temperature=1, seed=3)
        first, _ = server.strike(signal.SIGKILL)
        while not (successor := server.workers() - {first}):
            time.sleep(0.005)
        os.kill(*successor, signal.SIGKILL)
        server.wait_ready(True, BACK_S)
        assert answer.result() == expected


def test_time_limits_hold_while_a_worker_is_away(tessera):
    with Team(tessera, "--request-timeout", "0.3") as server, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(post, server, {**GOOD, "max_tokens": 450, "ignore_eos": True})
        server.strike(signal.SIGSTOP)
        start = time.monotonic()
        status, answer = pending.result()
        assert time.monotonic() - start < 0.6
        assert status == 504 and "did not end" in answer["error"]["message"]
        server.wait_ready(True, BACK_S)
        server.wait_for("kv_cache_usage_perc", 0)


def test_a_worker_that_never_comes_back_ends_the_server_with_the_reason(tessera, tmp_path):
    """The weights go away while the server runs, so that every successor fails."""
    model = tmp_path / MODEL.name
    model.mkdir()
    for file in MODEL.iterdir():
        (model / file.name).symlink_to(file)
    with Team(tessera, model=model) as server, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(post, server, {**GOOD, "max_tokens": 450, "ignore_eos": True})
        wait_for_tokens(server, 1)
        for file in model.glob("*.safetensors*"):
            file.unlink()
        server.strike(signal.SIGKILL)
        status, answer = pending.result()
        assert status in (500, 503) and "rank 1 of 2" in answer["error"]["message"]
        assert server.process.wait(timeout=30) != 0
        errors = server.process.stderr.read()
        assert "ended while they started" in errors and "safetensors" in errors
