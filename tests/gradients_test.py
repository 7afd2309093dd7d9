"""Loss and every gradient of the trainer equal Hugging Face transformers' in float32, for each architecture."""
import json
import subprocess

import numpy
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

COMMON = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
              head_dim=8, vocab_size=97, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.2,
              attention_dropout=0.0)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
MODELS = {
    "llama": lambda: transformers.LlamaConfig(**COMMON, tie_word_embeddings=False),
    "llama-scaled-tied": lambda: transformers.LlamaConfig(**COMMON, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "qwen3": lambda: transformers.Qwen3Config(**COMMON, tie_word_embeddings=True),
    "mixtral": lambda: transformers.MixtralConfig(**COMMON, num_local_experts=8, num_experts_per_tok=2,
                                                  router_aux_loss_coef=0.0, tie_word_embeddings=False),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(**COMMON, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32,
                                                     norm_topk_prob=True, router_aux_loss_coef=0.0, tie_word_embeddings=False),
}
LAYOUTS = ["dp=1", "tp=2", "fsdp=2,pp=2"]


def names_in_files(model):
    """Module parameter gradients under the names that the model's files have (experts apart)."""
    config, gradients = model.config, {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if name.endswith("experts.gate_up_proj") or name.endswith("experts.down_proj"):
            prefix, mixtral = name.rsplit(".", 1)[0], config.model_type == "mixtral"
            if mixtral:
                prefix = prefix.replace(".mlp.", ".block_sparse_moe.")
            for expert in range(gradient.shape[0]):
                part = gradient[expert]
                if name.endswith("gate_up_proj"):
                    gate, up = part.chunk(2, dim=0)
                    gradients[f"{prefix}.{expert}.{'w1' if mixtral else 'gate_proj'}.weight"] = gate
                    gradients[f"{prefix}.{expert}.{'w3' if mixtral else 'up_proj'}.weight"] = up
                else:
                    gradients[f"{prefix}.{expert}.{'w2' if mixtral else 'down_proj'}.weight"] = part
            continue
        if config.model_type == "mixtral":
            name = name.replace(".mlp.gate.", ".block_sparse_moe.gate.")
        gradients[name] = gradient
    return gradients


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_equal_hugging_face(name, root, tmp_path):
    probe = root / "build/release/gradient_probe"
    assert probe.exists(), f"{probe} is not built"
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name](), attn_implementation="eager").float()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "model")
    seq, batch = 32, 4
    tokens = torch.randint(0, 97, (batch, seq))
    (tmp_path / "batch.json").write_text(json.dumps({"samples": tokens.tolist(), "seq": seq}))
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    expected = names_in_files(model)
    for layout in LAYOUTS:
        for numerics in ["fast", "exact"]:
            out = tmp_path / f"{layout}-{numerics}"
            out.mkdir()
            run = subprocess.run([probe, tmp_path / "model", tmp_path / "batch.json", layout, numerics, out],
                                 capture_output=True, text=True, timeout=120)
            assert run.returncode == 0, run.stderr
            assert json.loads((out / "loss.json").read_text())["loss"] == pytest.approx(loss.item(), rel=1e-6)
            files = {path.name[:-4] for path in out.glob("*.f32")}
            assert files == set(expected)
            for tensor, gradient in expected.items():
                ours = numpy.fromfile(out / f"{tensor}.f32", dtype=numpy.float32).reshape(gradient.shape)
                difference = numpy.linalg.norm(ours - gradient.numpy()) / max(numpy.linalg.norm(gradient.numpy()), 1e-6)
                # float32 sums of at most 97 terms through four layers, forward and back
                assert difference < 3e-5, f"{layout} {numerics} {tensor}: {difference}"


def test_balancing_loss_equals_hugging_face(root, tmp_path):
    """One layer, so that their mean over layers' tokens and ours over layers are the same."""
    probe = root / "build/release/gradient_probe"
    torch.manual_seed(6)
    config = transformers.Qwen3MoeConfig(**{**COMMON, "num_hidden_layers": 1}, num_experts=8, num_experts_per_tok=2,
                                         moe_intermediate_size=32, norm_topk_prob=True, router_aux_loss_coef=0.5,
                                         output_router_logits=True, tie_word_embeddings=False)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    model.save_pretrained(tmp_path / "model")
    tokens = torch.randint(0, 97, (1, 32))
    (tmp_path / "batch.json").write_text(json.dumps({"samples": tokens.tolist(), "seq": 32}))
    out = model(tokens, labels=tokens)
    out.loss.backward()
    run = subprocess.run([probe, tmp_path / "model", tmp_path / "batch.json", "tp=2", "exact", tmp_path], capture_output=True,
                         text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    ours = json.loads((tmp_path / "loss.json").read_text())
    assert ours["aux_loss"] == pytest.approx(0.5 * out.aux_loss.item(), rel=1e-5)
    name = "model.layers.0.mlp.gate.weight"
    gradient = dict(model.named_parameters())[name].grad.numpy()
    found = numpy.fromfile(tmp_path / f"{name}.f32", dtype=numpy.float32).reshape(gradient.shape)
    assert numpy.linalg.norm(found - gradient) / numpy.linalg.norm(gradient) < 3e-5
