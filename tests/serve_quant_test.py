"""Models in few bits: what `checkpoint export --quantize` writes and what the server computes from it, against
PyTorch on the numbers that the file stands for."""
import json
import shutil

import numpy
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from safetensors.torch import save_file

from serve_models_test import PROMPT, generate, saved  # noqa: F401 (a fixture)
from serve_openai_test import Server

GROUP, PANEL = 32, 16


def unpacked(data, kind, n, k, blocks):
    """The float32 matrix of packed bytes, by the words of src/kernels/quant.h."""
    groups, int8 = -(-k // blocks // GROUP), kind == "int8"
    quants, factors = groups * (512 if int8 else 256), groups * PANEL * 2
    tile = -(-(quants + factors * (2 if kind == "int4-offset" else 1)) // 64) * 64
    tiles = data.reshape(-(-n // PANEL), blocks, tile)
    q = tiles[:, :, :quants].reshape(*tiles.shape[:2], groups, -1, PANEL, 4)  # panel, block, group, k / 4, row, 4
    if not int8:
        q = numpy.concatenate([q & 15, q >> 4], axis=3)
    q = q.astype(numpy.float32) - {"int8": 128, "int4": 8, "int4-offset": 0}[kind]
    half = tiles[:, :, quants:].copy().view(numpy.float16).astype(numpy.float32)
    half = half[:, :, :factors // 2 * (2 if kind == "int4-offset" else 1)].reshape(*tiles.shape[:2], -1, groups, PANEL)
    w = q * half[:, :, 0][:, :, :, None, :, None]
    if kind == "int4-offset":
        w += half[:, :, 1][:, :, :, None, :, None]
    rows = w.transpose(0, 4, 1, 2, 3, 5).reshape(-1, blocks, groups * GROUP)[:n, :, :k // blocks]
    return torch.from_numpy(rows.reshape(n, k).copy())


def read_packed(folder):
    """name -> float32 tensor, and the index."""
    index = json.loads((folder / "packed.json").read_text())
    data, tensors = load_file(folder / "packed.safetensors"), {}
    for name, entry in index["tensors"].items():
        if "kind" in entry:
            tensors[name] = unpacked(data[name], entry["kind"], entry["n"], entry["k"], entry["blocks"])
        else:
            tensors[name] = torch.from_numpy(data[name].astype(numpy.float32))
    return tensors, index


@pytest.fixture(scope="session")
def packed(run_tessera, saved, tmp_path_factory):  # noqa: F811
    """packed(name, kind) -> directory of the exported model."""
    made = {}

    def make(name, kind):
        if (name, kind) not in made:
            folder = tmp_path_factory.mktemp("packed") / f"{name}-{kind}"
            result = run_tessera("checkpoint", "export", saved(name)[1], "--to", folder, "--quantize", kind, "--dtype",
                                 "float32")
            assert result.returncode == 0, result.stderr
            shutil.copy(saved(name)[1] / "tokenizer.json", folder)
            made[name, kind] = folder
        return made[name, kind]

    return make


STEPS = {"int8": 1 / 254, "int4": 1 / 8, "int4-offset": 1 / 15}


@pytest.mark.parametrize("kind", STEPS)
def test_exported_numbers_are_within_a_step_of_the_weights(saved, packed, kind):  # noqa: F811
    model, _ = saved("llama")
    tensors, index = read_packed(packed("llama", kind))
    assert index["tp_blocks"] == 4 and index["tensors"]["model.layers.0.mlp.down_proj.weight"]["blocks"] == 4
    for name, weight in model.state_dict().items():
        entry, difference = index["tensors"][name], (tensors[name] - weight).abs()
        if "kind" not in entry:
            assert difference.max() == 0
            continue
        head = name == "lm_head.weight"
        assert entry["kind"] == ("int8" if head else kind)
        # Groups of a block; a scale of half precision adds 2^-10 of the largest weight at most.
        block = weight.reshape(weight.shape[0], entry["blocks"], -1)
        groups = torch.nn.functional.pad(block, (0, -block.shape[2] % GROUP)).unflatten(2, (-1, GROUP))
        bound = groups.abs().amax(-1) * (STEPS["int8" if head else kind] + 2**-10)
        if kind == "int4-offset" and not head:
            bound = (block.amax() - block.amin()) * (STEPS[kind] / 2 + 2**-10) + 0 * bound
        bound = bound[..., None].expand_as(groups).flatten(2)[..., :block.shape[2]].reshape_as(weight)
        assert (difference <= bound).all(), name
        assert difference.max() > 0


def rounded(x, blocks):
    """Rounded to int8 by groups of each block, as the server's products do."""
    block = x.unflatten(-1, (blocks, -1))
    groups = torch.nn.functional.pad(block, (0, -block.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    whole = torch.round(groups * torch.where(scale > 0, 1 / scale, 0)) * scale
    return whole.flatten(-2)[..., :block.shape[-1]].flatten(-2)


def reference_logits(folder, tokens, tmp_path, monkeypatch):
    """Hugging Face's model with the numbers of the packed file, its linear layers with rounded inputs."""
    tensors, index = read_packed(folder)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors",
              {"format": "pt"})
    shutil.copy(folder / "config.json", tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager",
                                                              experts_implementation="eager").eval()
    storage = {parameter.untyped_storage().data_ptr(): name for name, parameter in model.named_parameters()}
    linear = torch.nn.functional.linear

    def linear_of_rounded(x, weight, bias=None):
        name = storage[weight.untyped_storage().data_ptr()]
        row_parallel = "o_proj" in name or "down_proj" in name
        router = name.endswith("gate.weight")
        return linear(x if router else rounded(x, index["tp_blocks"] if row_parallel else 1), weight, bias)

    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", linear_of_rounded)
        return model(torch.tensor([tokens])).logits[0]


@pytest.mark.parametrize("name, kind", [("llama", "int8"), ("llama", "int4-offset"), ("qwen3", "int8"),
                                        ("qwen3", "int4"), ("mixtral", "int8"), ("qwen3_moe", "int4")])
def test_logits_equal_transformers_on_the_packed_numbers(run_tessera, packed, tmp_path, monkeypatch, name, kind):
    folder = packed(name, kind)
    ours = generate(run_tessera, folder, "--logits", "--max-tokens", "1")
    expected = reference_logits(folder, ours["prompt_tokens"], tmp_path, monkeypatch)
    difference = (torch.tensor(ours["logits"]) - expected).abs() / expected.abs().max()
    # A sum of another order may round an activation the other way: one step of 127 in one of hundreds of products.
    # That is rare, so half of all logits differ by float32's own rounding alone.
    assert difference.median() < 2e-6 and difference.max() < 0.03


def test_rounding_activations_costs_less_than_rounding_weights(saved, run_tessera, packed):  # noqa: F811
    model, _ = saved("qwen3")
    error = {}
    for kind in ("int8", "int4"):
        ours = generate(run_tessera, packed("qwen3", kind), "--logits", "--max-tokens", "1")
        with torch.no_grad():
            exact = model(torch.tensor([ours["prompt_tokens"]])).logits[0]
        error[kind] = ((torch.tensor(ours["logits"]) - exact).pow(2).mean() / exact.pow(2).mean()).sqrt()
    # Steps of int4 are 16 times those of int8; the activations' own share, which is int8's in both, adds little.
    assert error["int8"] < 0.05 and 4 * error["int8"] < error["int4"]


@pytest.mark.parametrize("name, kind", [("mixtral", "int4"), ("qwen3", "int8")])
def test_answers_do_not_depend_on_ranks_neighbours_or_chunks(tessera, packed, name, kind):
    jobs = [dict(prompt=PROMPT[:n], max_tokens=24, logprobs=3, temperature=t, seed=n) for n, t in [(9, 0), (30, 1)]]
    answers = []
    for arguments in (["tp=1"], ["tp=2", "--max-batch-tokens", "7"], ["tp=4", "--dtype", "float32"]):
        with Server(tessera, "--layout", *arguments, model=packed(name, kind)) as server:
            together = server.complete(**{**jobs[0], "prompt": [job["prompt"] for job in jobs]}).choices
            answers.append([server.complete(**job).choices[0] for job in jobs])
            assert together[0].text == answers[-1][0].text
            assert together[0].logprobs == answers[-1][0].logprobs
    assert answers[1] == answers[0] and answers[2] == answers[0]


def test_damage_is_found_and_named(run_tessera, packed, tmp_path):
    folder = shutil.copytree(packed("llama", "int8"), tmp_path / "model")
    assert run_tessera("checkpoint", "verify", folder).returncode == 0
    weights = folder / "packed.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1  # the last tensor: a norm
    weights.write_bytes(data)
    result = run_tessera("checkpoint", "verify", folder)
    assert result.returncode != 0 and "model.norm.weight has hash" in result.stderr
    weights.write_bytes(data[:-64])
    result = run_tessera("generate", "--model", folder, "--prompt", "x")
    assert result.returncode != 0 and "packed.safetensors" in result.stderr and result.stderr.count("\n") == 1
    weights.write_bytes(data)
    index = json.loads((folder / "packed.json").read_text())
    index["tensors"]["lm_head.weight"]["k"] = 128
    (folder / "packed.json").write_text(json.dumps(index))
    result = run_tessera("generate", "--model", folder, "--prompt", "x")
    assert result.returncode != 0 and "lm_head.weight takes" in result.stderr


def test_eval_reads_the_packed_numbers(run_tessera, packed, tmp_path):
    """Loss of `eval` on a packed model equals that on a Hugging Face directory of the same numbers."""
    tensors, _ = read_packed(packed("llama", "int4"))
    plain = tmp_path / "plain"
    plain.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, plain / "model.safetensors")
    shutil.copy(packed("llama", "int4") / "config.json", plain)
    shutil.copy(packed("llama", "int4") / "tokenizer.json", plain)
    (tmp_path / "text.txt").write_text(PROMPT * 60)
    result = run_tessera("data", "pack", "--data", tmp_path / "text.txt", "--tokenizer", plain, "--out",
                         tmp_path / "tokens", "--held-out", "0")
    assert result.returncode == 0, result.stderr
    losses = []
    for model in (plain, packed("llama", "int4")):
        result = run_tessera("eval", "--model", model, "--data", tmp_path / "tokens-train", "--seq", "64", "--precision",
                             "float32", "--json", "-")
        assert result.returncode == 0, result.stderr
        losses.append(json.loads(result.stdout)["loss"])
    assert losses[0] == losses[1] > 0
