"""What models that are only served have of their own: neighbours and chunks change nothing, packed weights, bad files."""
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from serve_models_test import PROMPT, generate, saved  # noqa: F401  (a fixture)
from serve_openai_test import Server

FAMILIES = ["gpt_oss", "gpt2", "deepseek_v2", "deepseek_v3"]


@pytest.mark.parametrize("name", FAMILIES)
def test_neighbours_and_chunks_change_no_answer(tessera, saved, name):  # noqa: F811
    _, folder = saved(name)
    jobs = [dict(prompt=(PROMPT * 2)[i:i + 20 + 5 * i], max_tokens=20 + i, logprobs=3, temperature=i % 2, seed=i) for i in range(6)]
    with Server(tessera, model=folder) as server:
        alone = [server.complete(**job).choices[0] for job in jobs]
    with Server(tessera, "--max-batch-tokens", "11", "--max-running", "6", "--guess", "3", model=folder) as server, ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda job: server.complete(**job).choices[0], jobs)) == alone


def copy_with(folder, target, change):
    """`folder` with other tensors: change(tensors) -> tensors."""
    target.mkdir()
    for source in folder.iterdir():
        if source.suffix == ".json":
            (target / source.name).write_bytes(source.read_bytes())
    tensors = change(safetensors.torch.load_file(folder / "model.safetensors"))
    safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, target / "model.safetensors")
    return target


def test_experts_in_mxfp4_are_read_exactly(run_tessera, saved, tmp_path):  # noqa: F811
    _, folder = saved("gpt_oss")
    generator = torch.Generator().manual_seed(3)

    def packed(tensors, read_back):
        """Experts of random bytes, as they are or as the floats that transformers reads from them."""
        out = {}
        for key, value in sorted(tensors.items()):
            if not key.endswith(("experts.gate_up_proj", "experts.down_proj")):
                out[key] = value
                continue
            experts, k, n = value.shape
            blocks = torch.randint(0, 256, (experts, n, k // 32, 16), generator=generator, dtype=torch.uint8)
            scales = torch.randint(122, 126, (experts, n, k // 32), generator=generator, dtype=torch.uint8)
            if read_back:
                out[key] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
                assert out[key].shape == value.shape
            else:
                out[key + "_blocks"], out[key + "_scales"] = blocks, scales
        generator.manual_seed(3)
        return out

    floats = copy_with(folder, tmp_path / "floats", lambda tensors: packed(tensors, True))
    few_bits = copy_with(folder, tmp_path / "mxfp4", lambda tensors: packed(tensors, False))
    answers = [generate(run_tessera, directory, "--logits", "--max-tokens", "16") for directory in (floats, few_bits)]
    assert answers[0]["tokens"] == answers[1]["tokens"] and answers[0]["logits"] == answers[1]["logits"]


def test_weights_in_fp8_are_read_exactly(run_tessera, saved, tmp_path):  # noqa: F811
    _, folder = saved("deepseek_v3")
    generator = torch.Generator().manual_seed(5)

    def squares(value):
        return torch.rand(*[-(-size // 128) for size in value.shape], generator=generator) * 0.02 + 0.01

    def packed(tensors, read_back):
        out = {}
        for key, value in sorted(tensors.items()):
            if "_proj" not in key:
                out[key] = value
                continue
            fp8 = (torch.randn(value.shape, generator=generator) * 8).to(torch.float8_e4m3fn)
            scale = squares(value)
            factor = scale.repeat_interleave(128, 0)[:value.shape[0]].repeat_interleave(128, 1)[:, :value.shape[1]]
            out.update({key: fp8.float() * factor} if read_back else {key: fp8, key + "_scale_inv": scale})
        generator.manual_seed(5)
        return out

    floats = copy_with(folder, tmp_path / "floats", lambda tensors: packed(tensors, True))
    few_bits = copy_with(folder, tmp_path / "fp8", lambda tensors: packed(tensors, False))
    answers = [generate(run_tessera, directory, "--logits", "--max-tokens", "16") for directory in (floats, few_bits)]
    assert answers[0]["tokens"] == answers[1]["tokens"] and answers[0]["logits"] == answers[1]["logits"]
    assert any(key.endswith("q_b_proj.weight_scale_inv") and tuple(value.shape) == (2, 1) for key, value in
               safetensors.torch.load_file(few_bits / "model.safetensors").items())


@pytest.mark.parametrize("name, tensor", [("gpt_oss", "model.layers.1.self_attn.sinks"),
                                          ("gpt_oss", "model.layers.2.mlp.experts.down_proj_bias"),
                                          ("gpt2", "transformer.h.1.attn.c_attn.weight"), ("gpt2", "transformer.wpe.weight"),
                                          ("deepseek_v3", "model.layers.0.self_attn.kv_b_proj.weight"),
                                          ("deepseek_v3", "model.layers.1.mlp.gate.e_score_correction_bias")])
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(run_tessera, saved, tmp_path, name, tensor):  # noqa: F811
    _, folder = saved(name)
    missing = copy_with(folder, tmp_path / "missing", lambda all: {key: value for key, value in all.items() if key != tensor})
    longer = copy_with(folder, tmp_path / "longer", lambda all: {**all, tensor: torch.cat([all[tensor]] * 2)})
    for directory in (missing, longer):
        result = run_tessera("generate", "--model", directory, "--prompt", "x")
        assert result.returncode != 0 and tensor in result.stderr
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("name, field, value", [
    ("gpt_oss", "layer_types", ["full_attention"] * 2), ("gpt_oss", "layer_types", ["chunked_attention"] * 3),
    ("gpt_oss", "attention_bias", False), ("gpt_oss", "num_experts_per_tok", 9), ("gpt_oss", "hidden_size", None),
    ("gpt_oss", "rope_parameters", {"rope_type": "longrope"}), ("deepseek_v3", "n_group", 5), ("gpt2", "activation_function", "relu"), ("gpt2", "n_head", 7), ("deepseek_v2", "topk_method", "noaux_tc"),
    ("deepseek_v3", "kv_lora_rank", None), ("deepseek_v2", "norm_topk_prob", True)])
def test_a_field_that_is_not_served_is_named(run_tessera, saved, tmp_path, name, field, value):  # noqa: F811
    _, folder = saved(name)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    result = run_tessera("generate", "--model", tmp_path, "--prompt", "x")
    assert result.returncode != 0 and f"'{field}'" in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
