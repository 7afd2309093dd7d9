"""LoRA adapters in PEFT's form: an answer is that of the model with W + scale * B A in place of W, whoever runs beside it."""
import json
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import safetensors.torch
import torch

from serve_models_test import PROMPT, saved  # noqa: F401  (a fixture)
from serve_openai_test import Server

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = ATTENTION + ["gate_proj", "up_proj", "down_proj"]


def write_adapter(base, target, seed, rank, alpha, modules, rslora=False):
    """An adapter's directory for the weights of `base`, and {name of a weight: what it adds}."""
    generator = torch.Generator().manual_seed(seed)
    tensors, added = {}, {}
    scale = alpha / (rank ** 0.5 if rslora else rank)
    for key, value in safetensors.torch.load_file(base / "model.safetensors").items():
        if key.removesuffix(".weight").rsplit(".", 1)[-1] not in modules or ".experts." in key:
            continue
        a = torch.randn(rank, value.shape[1], generator=generator) * 0.1
        b = torch.randn(value.shape[0], rank, generator=generator) * 0.1
        name = "base_model.model." + key.removesuffix(".weight")
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        added[key] = scale * b @ a
    target.mkdir()
    safetensors.torch.save_file(tensors, target / "adapter_model.safetensors")
    (target / "adapter_config.json").write_text(json.dumps(
        dict(peft_type="LORA", r=rank, lora_alpha=alpha, target_modules=modules, bias="none", use_rslora=rslora, task_type="CAUSAL_LM")))
    return target, added


def tokens_of(server, text):
    body = json.dumps({"prompt": text}).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + "/tokenize", body, {"Content-Type": "application/json"}), timeout=60) as answer:
        return json.loads(answer.read())["tokens"]


def greedy(model, ids, count):
    """(ids and the likeliest that follow, log probabilities of the next token at each)"""
    while True:
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        if count == 0:
            return ids, logprobs
        ids, count = ids + [int(logprobs[-1].argmax())], count - 1


def merged(model, added):
    """transformers' model with the additions in its weights, for the life of the `with`."""
    class Merged:
        def change(self, sign):
            with torch.no_grad():
                state = model.state_dict()
                for key, value in added.items():
                    state[key] += sign * value

        def __enter__(self):
            self.change(1)
            return model

        def __exit__(self, *_):
            self.change(-1)

    return Merged()


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_answers_are_those_of_the_merged_weights(tessera, saved, tmp_path, name):  # noqa: F811
    model, folder = saved(name)
    adapters = [write_adapter(folder, tmp_path / "a", 1, 4, 8, ALL), write_adapter(folder, tmp_path / "b", 2, 8, 8, ATTENTION, rslora=True)]
    options = [f"--adapter={path.name}={path}" for path, _ in adapters]
    with Server(tessera, *options, model=folder) as server:
        names = [server.name, "a", "b"]
        assert [entry.id for entry in server.client.models.list().data] == names
        assert server.client.models.retrieve("b").parent == server.name
        for who, added in zip(names, [{}, adapters[0][1], adapters[1][1]]):
            answer = server.client.completions.create(model=who, prompt=PROMPT, max_tokens=20, temperature=0, echo=True, logprobs=0)
            assert answer.model == who
            values = answer.choices[0].logprobs
            with merged(model, added):
                ids, logprobs = greedy(model, tokens_of(server, PROMPT), 20)
            expected = logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
            assert (torch.tensor(values.token_logprobs[1:]) - expected).abs().max() < 2e-4


def test_adapters_in_one_batch_change_no_answer(tessera, saved, tmp_path):  # noqa: F811
    _, folder = saved("llama")
    few_bits = tmp_path / folder.name
    for kind, modules in (("a", ALL), ("b", ["q_proj", "down_proj"]), ("c", ["o_proj"])):
        write_adapter(folder, tmp_path / kind, ord(kind), 4, 16, modules)
    options = [f"--adapter={kind}={tmp_path / kind}" for kind in "abc"]
    jobs = [dict(prompt=PROMPT[:30 - i % 3], max_tokens=25, temperature=i % 2, seed=i, logprobs=2) for i in range(8)]
    subprocess.run([tessera, "checkpoint", "export", folder, "--to", few_bits, "--quantize", "int8"], check=True, capture_output=True)
    for model in (folder, few_bits):
        def ask(server, i):
            who = ["a", "b", "c", server.name][i % 4]
            return server.client.completions.create(model=who, **jobs[i]).choices[0]

        with Server(tessera, *options, model=model) as server:
            alone = [ask(server, i) for i in range(8)]
            assert len({choice.text for choice in alone}) > 4
            plain = [server.complete(**job).choices[0] for job in jobs[3::4]]
        with Server(tessera, model=model) as server:  # rows without an adapter are as on a server without any
            assert [server.complete(**job).choices[0] for job in jobs[3::4]] == plain == alone[3::4]
        with Server(tessera, *options, "--max-batch-tokens", "16", "--guess", "3", "--max-running", "8", model=model) as server, ThreadPoolExecutor(8) as pool:
            for _ in range(2):  # the second time from the cache, each adapter's own
                assert list(pool.map(lambda i: ask(server, i), range(8))) == alone


def test_what_is_not_an_adapter_of_this_model_is_named(run_tessera, saved, tmp_path):  # noqa: F811
    _, folder = saved("llama")
    path, _ = write_adapter(folder, tmp_path / "good", 1, 4, 8, ATTENTION)

    def refused(said, change=None, config=None, arguments=None):
        target = tmp_path / f"bad{len(list(tmp_path.iterdir()))}"
        target.mkdir()
        tensors = safetensors.torch.load_file(path / "adapter_model.safetensors")
        safetensors.torch.save_file(change(tensors) if change else tensors, target / "adapter_model.safetensors")
        (target / "adapter_config.json").write_text(json.dumps({**json.loads((path / "adapter_config.json").read_text()), **(config or {})}))
        result = run_tessera("serve", "--model", folder, "--port", "0", *(arguments or ["--adapter", f"x={target}"]))
        assert result.returncode != 0 and said in result.stderr, result.stderr
        assert result.stderr.count("error: ") == 1

    key = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    refused(key, lambda t: {k: v for k, v in t.items() if k != key})
    refused(key, lambda t: {**t, key: torch.zeros(3, 4)})
    refused("embed_tokens", lambda t: {**t, "base_model.model.model.embed_tokens.lora_A.weight": torch.zeros(4, 256)})
    refused("use_dora", config=dict(use_dora=True))
    refused("peft_type", config=dict(peft_type="IA3"))
    refused("r = 5", config=dict(r=5))
    refused("NAME=DIRECTORY", arguments=["--adapter", "x"])
    refused("twice", arguments=["--adapter", f"x={path}", "--adapter", f"x={path}"])
    refused("one process", arguments=["--adapter", f"x={path}", "--layout", "tp=2"])


def test_an_unknown_adapter_is_404(tessera, saved, tmp_path):  # noqa: F811
    _, folder = saved("llama")
    path, _ = write_adapter(folder, tmp_path / "a", 1, 4, 8, ATTENTION)
    with Server(tessera, f"--adapter=a={path}", model=folder) as server:
        with pytest.raises(openai.NotFoundError) as error:
            server.client.completions.create(model="b", prompt="x")
        assert "adapters a" in error.value.message

