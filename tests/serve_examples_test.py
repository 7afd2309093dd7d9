"""examples/serve: what can run here runs, with the answers of a plain server; recipes of the planner are what it says."""
import os
import re
import shlex
import subprocess
import urllib.request

import openai
import pytest

from serve_models_test import PROMPT, saved  # noqa: F401  (a fixture)
from serve_openai_test import MODEL, Server

LONG = "Once upon a time there was a little girl named Lily who loved to play outside in the park. " * 8


class Example:
    """A script of examples/serve with a free port, until the end of the `with`."""

    def __init__(self, tessera, script, model):
        self.process = subprocess.Popen([script, model, "--port", "0", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env={**os.environ, "TESSERA": str(tessera)})
        line = self.process.stdout.readline()
        assert "http" in line, line + self.process.stderr.read()
        self.url = re.search(r"http://127\.0\.0\.1:\d+", line).group()
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def metric(self, name):
        text = urllib.request.urlopen(self.url + "/metrics", timeout=10).read().decode()
        return float(re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.M).group(1))


def answers(server, name, prompts):
    return [server.client.completions.create(model=name, prompt=prompt, max_tokens=24, temperature=1, seed=i, logprobs=1).choices
            for i, prompt in enumerate(prompts)]


def check(root, tessera, script, model, prompts):
    with Server(tessera, "--quiet", model=model) as plain:
        expected = answers(plain, model.name, prompts)
    with Example(tessera, root / "examples/serve" / script, model) as example:
        assert answers(example, model.name, prompts) == expected
        return example.metric("tessera:prefills_received_total")


@pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")
@pytest.mark.parametrize("script", ["dense.sh", "prefill_apart.sh"])
def test_dense_model(root, tessera, script):
    received = check(root, tessera, script, MODEL, ["Once upon a time", LONG, LONG + "Then"])
    assert received == (script == "prefill_apart.sh")  # of the second long prompt the beginning is in the cache


def test_experts_over_two_processes(root, tessera, saved):  # noqa: F811
    _, folder = saved("qwen3_moe")
    check(root, tessera, "moe_two_processes.sh", folder, [PROMPT, PROMPT[:5]])


@pytest.mark.parametrize("script", ["dense.sh", "moe_two_processes.sh", "prefill_apart.sh"])
def test_without_a_model_the_example_says_what_it_needs(root, script):
    run = subprocess.run([root / "examples/serve" / script], capture_output=True, text=True)
    assert run.returncode != 0 and "which model? give" in run.stderr


@pytest.mark.parametrize("recipe", ["h100_node", "gb200_nvl72"])
def test_recipes_are_what_the_planner_says(root, run_tessera, recipe):
    """Figures may move with the planner's constants; the deployments of the recipe are among the best all the same, and the
    command that it ends with has the options that the planner gives it."""
    text = (root / f"examples/serve/{recipe}.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```\n\n```\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 2
    for command, output in blocks:
        words = shlex.split(command.replace("\\\n", " "))
        assert words[0] == "tessera"
        if "--emit" in words:
            flags = run_tessera(*words[1:]).stdout
            assert re.findall(r"--\S+", flags) == re.findall(r"--\S+", output)
            assert re.search(r"--layout \S+", flags).group() == re.search(r"--layout \S+", output).group()
        else:
            best = re.search(r"^ +1 (.*?)  +\d", output, re.M).group(1)
            words[words.index("--top") + 1] = "40"
            assert best in run_tessera(*words[1:]).stdout, best
