"""GPTQ and AWQ directories, packed here by their definitions, against the numbers that they stand for in transformers."""
import json

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from serve_families_test import copy_with
from serve_models_test import COMMON, EXPERTS, PROMPT, byte_tokenizer, generate
from serve_openai_test import Server

SIZES = dict(COMMON, hidden_size=128, intermediate_size=256, num_hidden_layers=2)
CONFIGS = {
    "llama": transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
    "qwen3_moe": transformers.Qwen3MoeConfig(**{**SIZES, **EXPERTS, "moe_intermediate_size": 128}, head_dim=32, norm_topk_prob=True),
}
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def words(numbers, axis, order=range(8)):
    """Eight numbers of 4 bits along `axis` to an int32, number order[i] in the bits 4 i."""
    numbers = np.moveaxis(numbers.astype(np.uint32), axis, -1)
    numbers = numbers.reshape(*numbers.shape[:-1], -1, 8)
    packed = sum(numbers[..., source] << np.uint32(4 * place) for place, source in enumerate(order))
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(packed, -1, axis)).astype(np.uint32).view(np.int32))


class Packer:
    """Turns products into random 4-bit ones: what a file holds, and the floats that it means by w = (q - zero) * scale."""

    def __init__(self, method, group, desc_act=False, sym=True, v2=False):
        self.method, self.group, self.desc_act, self.sym, self.v2 = method, group, desc_act, sym, v2
        self.random = np.random.default_rng(7)
        self.groups_of_layer = {}

    def config(self):
        if self.method == "awq":
            return dict(quant_method="awq", bits=4, group_size=self.group, zero_point=not self.sym, version="gemm")
        return dict(quant_method="gptq", bits=4, group_size=self.group, desc_act=self.desc_act, sym=self.sym,
                    checkpoint_format="gptq_v2" if self.v2 else "gptq")

    def g_idx(self, name, k, group):
        runs = np.arange(k) // group
        if not self.desc_act:
            return runs
        # Products of the same input are quantised with the same statistics, so they share their order.
        inputs = name.rsplit(".", 1)[0] + str(k) + str(name.endswith(("o_proj", "down_proj")))
        return self.groups_of_layer.setdefault(inputs, self.random.permutation(runs))

    def pack(self, name, n, k):
        group = k if self.group == -1 else self.group
        q = self.random.integers(0, 16, (k, n))
        zero = np.full((k // group, n), 8) if self.sym else self.random.integers(1 if self.method == "gptq" and not self.v2 else 0, 16, (k // group, n))
        scale = self.random.uniform(0.002, 0.02, (k // group, n)).astype(np.float16)
        g_idx = self.g_idx(name, k, group)
        meant = (q - zero[g_idx]) * scale[g_idx].astype(np.float32)
        if self.method == "awq":
            parts = dict(qweight=words(q, 1, AWQ_ORDER), qzeros=words(zero, 1, AWQ_ORDER))
        else:
            parts = dict(qweight=words(q, 0), qzeros=words(zero if self.v2 else zero - 1, 1), g_idx=torch.from_numpy(g_idx.astype(np.int32)))
        return {**parts, "scales": torch.from_numpy(scale)}, torch.from_numpy(np.ascontiguousarray(meant.T.astype(np.float32)))


def is_product(key, value):
    return value.dim() == 2 and "_proj" in key


@pytest.fixture(scope="module")
def float_models(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(4)
            folder = tmp_path_factory.mktemp(name)
            transformers.AutoModelForCausalLM.from_config(CONFIGS[name]).save_pretrained(folder)
            byte_tokenizer(folder / "tokenizer.json")
            made[name] = folder
        return made[name]

    return make


def write(folder, target, packer):
    """(directory in 4 bits, transformers' model of the floats that it means)"""
    meant = {}

    def packed(tensors):
        out = {}
        for key, value in sorted(tensors.items()):
            if not is_product(key, value):
                out[key] = meant[key] = value
                continue
            name = key.removesuffix(".weight")
            parts, meant[key] = packer.pack(name, *value.shape)
            out.update({f"{name}.{part}": tensor for part, tensor in parts.items()})
        return out

    copy_with(folder, target / "packed", packed)
    copy_with(folder, target / "floats", lambda _: meant)
    config = json.loads((folder / "config.json").read_text())
    (target / "packed/config.json").write_text(json.dumps({**config, "quantization_config": packer.config()}))
    return target / "packed", transformers.AutoModelForCausalLM.from_pretrained(target / "floats", attn_implementation="eager").eval()


def rounded_to_int8(x):
    """What the server does with inputs of products in few bits: int8 by groups of 32, scale = largest / 127."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
    return (torch.round(groups * inverse) * scale).reshape(x.shape)


def round_inputs(model, orders):
    """Inputs of every product are rounded in the order in which their groups stand."""
    def hook(order):
        def rounded(_, inputs):
            x = inputs[0]
            return (rounded_to_int8(x[..., order])[..., torch.argsort(order)],)
        return rounded

    for key, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "_proj" in key:
            module.register_forward_pre_hook(hook(orders(key, module.in_features)))


CASES = [("gptq", 32, False, True, False), ("gptq", 64, False, False, False), ("gptq", 128, True, True, False), ("gptq", 32, True, False, True),
         ("gptq", -1, False, True, True), ("awq", 32, False, False, False), ("awq", 128, False, False, False), ("awq", 64, False, True, False)]


@pytest.mark.parametrize("method, group, desc_act, sym, v2", CASES)
def test_logits_are_those_of_the_numbers_that_the_file_means(run_tessera, float_models, tmp_path, method, group, desc_act, sym, v2):
    packer = Packer(method, group, desc_act, sym, v2)
    folder, model = write(float_models("llama"), tmp_path, packer)

    def order_of(key, k):
        return torch.from_numpy(np.argsort(packer.g_idx(key, k, k if group == -1 else group), kind="stable"))

    round_inputs(model, order_of)
    ours = generate(run_tessera, folder, "--logits", "--max-tokens", "16")
    with torch.no_grad():
        expected = model(torch.tensor([ours["prompt_tokens"] + ours["tokens"]])).logits[0]
    logits = torch.tensor(ours["logits"])
    difference = (logits - expected[:len(logits)]).abs() / expected.abs().max()
    # As for our own packed files (serve_quant_test): a sum of another order may round an input the other way, rarely, so a
    # quarter of all logits and more differ by float32's own rounding alone.
    assert difference.quantile(0.25) < 2e-6 and difference.max() < 0.03
    assert expected[len(PROMPT) - 1:-1].argmax(-1).tolist() == ours["tokens"]


@pytest.mark.parametrize("method, group, desc_act, sym", [("gptq", 32, True, False), ("awq", 64, False, False)])
def test_experts_in_four_bits(run_tessera, tessera, float_models, tmp_path, method, group, desc_act, sym):
    folder, model = write(float_models("qwen3_moe"), tmp_path, Packer(method, group, desc_act, sym))
    ours = generate(run_tessera, folder, "--logits", "--max-tokens", "8")
    with torch.no_grad():
        expected = model(torch.tensor([ours["prompt_tokens"]])).logits[0]
    # Inputs of products are rounded to 8 bits here and not there.
    assert (torch.tensor(ours["logits"]) - expected).pow(2).mean().sqrt() < 0.1 * expected.std()
    jobs = [dict(prompt=PROMPT[i:], max_tokens=12, logprobs=2) for i in range(4)]
    with Server(tessera, model=folder) as server:
        alone = [server.complete(**job).choices[0] for job in jobs]
        together = server.complete([job["prompt"] for job in jobs], max_tokens=12, logprobs=2).choices
    assert [choice.text for choice in together] == [choice.text for choice in alone]
    assert [choice.logprobs for choice in together] == [choice.logprobs for choice in alone]


@pytest.mark.parametrize("change, said", [
    (dict(bits=3), "3 bits"), (dict(quant_method="bitsandbytes"), "bitsandbytes"), (dict(group_size=48), "group_size"),
    (dict(group_size=64), "qzeros"), (dict(checkpoint_format="marlin"), "marlin")])
def test_what_is_not_served_is_named(run_tessera, float_models, tmp_path, change, said):
    folder, _ = write(float_models("llama"), tmp_path, Packer("gptq", 32))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"].update(change)
    (folder / "config.json").write_text(json.dumps(config))
    result = run_tessera("generate", "--model", folder, "--prompt", "x")
    assert result.returncode != 0 and said in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr


def test_a_torn_group_index_or_a_bias_is_named(run_tessera, float_models, tmp_path):
    folder, _ = write(float_models("llama"), tmp_path, Packer("gptq", 32, desc_act=True))
    name = "model.layers.1.mlp.down_proj"

    def refused(part, tensor):
        target = copy_with(folder, tmp_path / part, lambda tensors: {**tensors, f"{name}.{part}": tensor})
        result = run_tessera("generate", "--model", target, "--prompt", "x")
        assert result.returncode != 0 and f"{name}.{part}" in result.stderr, result.stderr

    refused("g_idx", torch.zeros(256, dtype=torch.int32))
    refused("bias", torch.ones(128))
    refused("qweight", torch.zeros(31, 128, dtype=torch.int32))
    refused("scales", torch.zeros(8, 128))
