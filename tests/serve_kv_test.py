"""Keys and values in few bits: how far answers move, that they do not depend on the load, and what the cache takes."""

import pytest
import torch

from serve_models_test import PROMPT, generate, saved  # noqa: F401 (a fixture)
from serve_openai_test import Server


def logits(run_tessera, folder, kv):
    ours = generate(run_tessera, folder, "--logits", "--max-tokens", "1", "--dtype", "bf16", "--kv", kv)
    return torch.tensor(ours["logits"])


@pytest.mark.parametrize("name", ["llama", "qwen3"])  # experts would change where two are close
def test_bytes_move_logits_little(run_tessera, saved, name):  # noqa: F811
    model, folder = saved(name)
    tokens = generate(run_tessera, folder, "--max-tokens", "1")["prompt_tokens"]
    with torch.no_grad():
        exact = model(torch.tensor([tokens])).logits[0]
    error = {kv: ((logits(run_tessera, folder, kv) - exact).pow(2).mean() / exact.pow(2).mean()).sqrt().item()
             for kv in ("bf16", "int8", "fp8")}
    # Half steps: int8 1/254 of the largest of a head, E4M3 1/16 of each element, bf16 1/512: what keys and values add to
    # the error of bf16 activations, which is a few hundredths here.
    assert error["bf16"] < error["int8"] < 1.5 * error["bf16"] + 0.01
    assert error["int8"] < error["fp8"] < error["bf16"] + 0.15


@pytest.mark.parametrize("kv", ["int8", "fp8"])
def test_answers_do_not_depend_on_ranks_neighbours_or_chunks(tessera, saved, kv):  # noqa: F811
    _, folder = saved("qwen3")
    jobs = [dict(prompt=PROMPT[:n], max_tokens=24, logprobs=3, temperature=t, seed=n) for n, t in [(9, 0), (30, 1)]]
    answers = []
    for arguments in (["tp=1"], ["tp=2", "--max-batch-tokens", "7"], ["tp=1", "--guess", "3"]):
        with Server(tessera, "--dtype", "bf16", "--kv", kv, "--layout", *arguments, model=folder) as server:
            together = server.complete(**{**jobs[0], "prompt": [job["prompt"] for job in jobs]}).choices
            answers.append([server.complete(**job).choices[0] for job in jobs])
            assert together[0].text == answers[-1][0].text
            assert together[0].logprobs == answers[-1][0].logprobs
    assert answers[1] == answers[0] and answers[2] == answers[0]


def test_types_that_do_not_fit_are_one_readable_error(run_tessera, saved):  # noqa: F811
    _, folder = saved("llama")
    for arguments, word in ((["--kv", "int4", "--dtype", "bf16"], "'int4'"), (["--kv", "int8"], "--dtype bf16")):
        result = run_tessera("generate", "--model", folder, "--prompt", "x", *arguments)
        assert result.returncode != 0 and word in result.stderr and result.stderr.count("\n") == 1
