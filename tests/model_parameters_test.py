"""Parameter counts of `tessera plan model` equal those of Hugging Face's own modules on the meta device."""
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CAUSAL = [
    "llama", "mixtral", "qwen2", "qwen3_moe", "qwen3_5_moe_text", "gemma2", "gpt2", "gpt_neox", "opt", "bloom",
    "falcon", "starcoder2", "phi3", "olmo2", "deepseek_v3", "deepseek_v4", "gpt_oss", "minimax_m2",
]
ESM = dict(hidden_size=320, num_hidden_layers=6, num_attention_heads=20, intermediate_size=1280, vocab_size=33,
           position_embedding_type="rotary", emb_layer_norm_before=False, token_dropout=True, pad_token_id=1,
           mask_token_id=32)


def known_here(names):
    return [name for name in names if name in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES]


def configurations():
    for name in known_here(CAUSAL):
        yield name, transformers.AutoConfig.for_model(name), transformers.AutoModelForCausalLM
    yield "bert", transformers.AutoConfig.for_model("bert"), transformers.AutoModelForMaskedLM
    yield "esm", transformers.AutoConfig.for_model("esm", **ESM), transformers.AutoModelForMaskedLM


def parameters_of(config, model_class):
    with torch.device("meta"):
        model = model_class.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def test_counts_equal_hugging_face(run_tessera, tmp_path):
    expected, paths = {}, []
    for name, config, model_class in configurations():
        expected[name] = parameters_of(config, model_class)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config.to_dict() | {"model_type": name}))
        paths.append(path)
    result = run_tessera("plan", "model", *paths, "--json", "-")
    assert result.returncode == 0, result.stderr
    counted = {model["name"]: model["parameters"]["total"] for model in json.loads(result.stdout)["models"]}
    assert counted == expected
    assert len(counted) >= 12


def test_unknown_model_offers_the_nearest_name(run_tessera):
    result = run_tessera("plan", "model", "deepsek-v3")
    assert result.returncode != 0
    assert "did you mean 'deepseek-v3'" in result.stderr


def test_catalogue_names_are_answered(run_tessera):
    result = run_tessera("plan", "model", "deepseek-v3", "gpt3-175b", "moe-10t", "--json", "-")
    totals = [model["parameters"]["total"] for model in json.loads(result.stdout)["models"]]
    assert [round(total / 1e9) for total in totals] == [671, 175, 10005]
