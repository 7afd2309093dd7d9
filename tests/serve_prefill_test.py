"""Prompts computed by other processes: answers are those of one process, bit for bit, whatever becomes of the workers."""
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from serve_faults_test import Team
from serve_openai_test import MODEL, Server

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")

BEGINNINGS = ["Once upon a time there was a little girl named Lily who loved to play outside. ",
              "Tom and his dog went to the park on a sunny day and saw a big red ball in the grass. "]
# Short prompts, long ones, and long ones that begin alike.
JOBS = [dict(prompt=(f"Story {i}: " if i % 3 else "") + BEGINNINGS[i % 2] * (1 + i % 5) if i % 5 else f"Bird {i}",
             max_tokens=4 + i % 40, temperature=[0, 1][i % 2], seed=i, logprobs=2 if i % 3 == 0 else None,
             echo=i % 7 == 3) for i in range(36)]
OPTIONS = "--quiet", "--kv-tokens", "1536", "--max-batch-tokens", "48", "--max-running", "8"
APART = *OPTIONS, "--prefill-from", "32", "--prefill-workers"


class Apart(Team):
    """A server with prefill workers."""

    def __init__(self, tessera, workers, *more):
        super().__init__(tessera, "--layout", "dp=1", *APART, str(workers), *more)

    def count(self, name):
        return self.metrics()[("tessera:" + name + "_total", None)]

    def wait_until(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not after {seconds} s"
            time.sleep(0.005)


def answers_of(server, jobs=JOBS):
    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(lambda job: server.complete(**job).choices, jobs))


@pytest.fixture(scope="module")
def expected(tessera):
    with Server(tessera, *OPTIONS) as server:
        return answers_of(server)


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_are_those_of_one_process(tessera, expected, workers):
    with Apart(tessera, workers) as server:
        assert answers_of(server) == expected
        assert server.count("prefills_received") >= 10 and server.count("prefills_failed") == 0
        # stories260K: 5 layers of 4 KV heads of 8 values for keys and values each, in float32; blocks of 16 tokens
        blocks = server.count("prefill_bytes_received") / (5 * 2 * 4 * 8 * 4 * 16)
        assert blocks == int(blocks) and blocks >= server.count("prefills_received")
        server.wait_for("kv_cache_usage_perc", 0)
        server.terminate()
        assert server.process.wait(20) == 0


def test_keys_and_values_in_few_bits_and_slower_tiers(tessera):
    options = "--dtype", "bf16", "--kv", "int8", "--kv-host-tokens", "1024"
    with Server(tessera, *OPTIONS, *options) as one:
        expected = answers_of(one)
    with Apart(tessera, 1, *options) as server:
        assert answers_of(server) == expected
        assert server.count("prefills_received") >= 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_lost_prefill_worker_loses_nothing(tessera, expected, number, workers):
    with Apart(tessera, workers) as server, ThreadPoolExecutor(len(JOBS)) as pool:
        answers = pool.map(lambda job: server.complete(**job).choices, JOBS)
        server.wait_until(lambda: server.count("prefills_received") >= 3)
        victim = max(server.workers())
        os.kill(victim, number)
        assert list(answers) == expected
        assert server.ready()
        # It is replaced, and the next prompts go to workers again.
        server.wait_until(lambda: server.count("worker_losses") == 1)
        server.wait_until(lambda: len(server.workers() - {victim}) == workers)
        received = server.count("prefills_received")
        job = dict(prompt="A cat sat on a mat and looked at the rain for a long, long time. " * 4, max_tokens=3)
        server.wait_until(lambda: server.complete(**job, extra_body={"cache_salt": str(time.monotonic())}) and
                          server.count("prefills_received") > received)
        server.wait_for("kv_cache_usage_perc", 0)


def test_clients_that_leave_while_their_prompt_is_away_leave_nothing_behind(tessera):
    with Apart(tessera, 1, "--request-timeout", "0.5") as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(openai.APIStatusError, match="did not (start|end)"), ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: server.complete(f"Story {i}: " + BEGINNINGS[0] * 3, max_tokens=300, seed=i), range(8)))
        server.wait_for("num_requests_waiting", 0)
        server.wait_for("num_requests_running", 0)
        server.wait_for("kv_cache_usage_perc", 0)


def test_prefill_workers_beside_a_layout_are_one_readable_error(run_tessera):
    result = run_tessera("serve", "--model", MODEL, "--port", "0", "--layout", "tp=2", "--prefill-workers", "1", timeout=60)
    assert result.returncode != 0 and "--prefill-workers bring keys and values to one process" in result.stderr
