"""A server over processes in every layout: answers are those of one process, bit for bit, also after a loss."""
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_faults_test import BACK_S, Team
from serve_models_test import PROMPT, saved  # noqa: F401  (a fixture)
from serve_openai_test import MODEL, Server

JOBS = [dict(prompt=(PROMPT * 2)[:9 + 5 * (i % 8)], max_tokens=6 + i % 30, logprobs=3 if i % 3 else None,
             temperature=[0, 1][i % 2], seed=i) for i in range(24)]


def answers_of(server):
    """All jobs at once, so that replicas have unequal work, some of them none at the end."""
    with ThreadPoolExecutor(len(JOBS)) as pool:
        return list(pool.map(lambda job: server.complete(**job).choices, JOBS))


@pytest.mark.parametrize("name, layouts", [
    ("qwen3_moe", ["ep=2", "tp=2,ep=2", "dp=2", "pp=2", "pp=3", "pp=2,ep=2"]),
    ("qwen3_moe-plain-weights", ["ep=4"]),  # one layer in the middle is dense
    ("qwen3", ["tp=2,pp=2", "dp=2,pp=2"]),  # embedding and head are one weight, on two stages
    ("gpt_oss", ["pp=3", "ep=2"]), ("deepseek_v3", ["pp=2,ep=2"]), ("gpt2", ["tp=2,pp=2"]),
])
def test_every_layout_gives_the_answers_of_one_process(tessera, saved, name, layouts):  # noqa: F811
    _, folder = saved(name)
    options = "--quiet", "--max-batch-tokens", "64", "--max-running", "16", "--kv-tokens", "1024"
    with Server(tessera, *options, model=folder) as one:
        expected = answers_of(one)
    for layout in layouts:
        with Server(tessera, *options, "--layout", layout, model=folder) as server:
            assert layout in server.line or "fsdp" in server.line
            assert answers_of(server) == expected, layout
            server.wait_for("kv_cache_usage_perc", 0)
            server.terminate()
            assert server.process.wait(20) == 0


def test_stages_and_owners_of_experts_are_replaced_when_they_are_lost(tessera, saved):  # noqa: F811
    _, folder = saved("qwen3_moe")
    jobs = [dict(prompt=PROMPT, max_tokens=80, temperature=1, seed=i) for i in range(12)]
    with Team(tessera, "--layout", "pp=2,ep=2", model=folder) as server, ThreadPoolExecutor(12) as pool:
        expected = [server.stream(job) for job in jobs]
        answers = pool.map(server.stream, jobs)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            server.strike(number)
            server.wait_ready(True, BACK_S)
        assert list(answers) == expected


@pytest.mark.parametrize("layout, text", [("cp=2", "cp"), ("ep=2", "no experts"), ("pp=9", "9 stages")])
def test_layouts_that_do_not_fit_are_readable_errors(run_tessera, layout, text):
    result = run_tessera("serve", "--model", MODEL, "--port", "0", "--layout", layout, timeout=60)
    assert result.returncode != 0 and text in result.stderr, result.stderr
