"""The server's forward pass against Hugging Face transformers, on small random models of each architecture."""
import copy
import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from serve_openai_test import Server, post

PROMPT = "Tiles of a mosaic, one for each rank."
COMMON = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8,
              num_key_value_heads=4, max_position_embeddings=128, initializer_range=0.15, bos_token_id=None,
              eos_token_id=None, pad_token_id=None)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
EXPERTS = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=48, decoder_sparse_step=1)
LATENT = {**COMMON, "num_key_value_heads": 8, "kv_lora_rank": 32, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 16}
CONFIGS = {
    "llama": transformers.LlamaConfig(**COMMON, tie_word_embeddings=False),
    "llama-scaled-rope": transformers.LlamaConfig(
        **COMMON, tie_word_embeddings=True, rope_theta=500_000.0, rope_scaling={**LLAMA3, "rope_theta": 500_000.0}),
    "qwen3": transformers.Qwen3Config(**COMMON, head_dim=16, tie_word_embeddings=True),
    "mixtral": transformers.MixtralConfig(**COMMON, num_local_experts=8, num_experts_per_tok=2, sliding_window=None),
    "qwen3_moe": transformers.Qwen3MoeConfig(**COMMON, **EXPERTS, head_dim=16, norm_topk_prob=True),
    "qwen3_moe-plain-weights": transformers.Qwen3MoeConfig(
        **COMMON, **EXPERTS, head_dim=16, norm_topk_prob=False, mlp_only_layers=[1]),
    "gpt_oss": transformers.GptOssConfig(
        **COMMON, num_local_experts=8, num_experts_per_tok=3, head_dim=16, sliding_window=9,
        rope_parameters=dict(rope_type="yarn", rope_theta=150_000.0, factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                             original_max_position_embeddings=32)),
    "gpt2": transformers.GPT2Config(vocab_size=256, n_positions=128, n_embd=64, n_layer=3, n_head=8, n_inner=96, initializer_range=0.15,
                                    bos_token_id=None, eos_token_id=None),
    "deepseek_v2": transformers.DeepseekV2Config(
        **LATENT, q_lora_rank=None, n_routed_experts=12, n_group=3, topk_group=2, topk_method="group_limited_greedy", num_experts_per_tok=3,
        n_shared_experts=2, first_k_dense_replace=1, moe_intermediate_size=48, routed_scaling_factor=1.5),
    "deepseek_v3": transformers.DeepseekV3Config(
        **LATENT, q_lora_rank=40, n_routed_experts=12, n_group=4, topk_group=2, num_experts_per_tok=3, n_shared_experts=1,
        first_k_dense_replace=1, moe_intermediate_size=48, rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type="yarn", rope_theta=10_000.0, factor=4.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
                             original_max_position_embeddings=32)),
}


def byte_tokenizer(path):
    """One token for each byte, so that any text can be served."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """saved(name) -> (Hugging Face model, its directory); norms and biases are made random too, or they would test nothing."""
    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(5)
            model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    if parameter.dim() == 1 or key.endswith("bias"):
                        parameter.uniform_(0.5, 1.5)
                for key, buffer in model.named_buffers():
                    if key.endswith("correction_bias"):
                        buffer.uniform_(-0.3, 0.3)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            byte_tokenizer(folder / "tokenizer.json")
            made[name] = model, folder
        return made[name]

    return make


def generate(run_tessera, folder, *arguments):
    result = run_tessera("generate", "--model", folder, "--prompt", PROMPT, "--json", "-", *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_greedy_tokens_equal_transformers(run_tessera, saved, name):
    model, folder = saved(name)
    ours = generate(run_tessera, folder, "--logits", "--max-tokens", "24")
    prompt = torch.tensor([ours["prompt_tokens"]])
    assert len(ours["prompt_tokens"]) == len(PROMPT)
    with torch.no_grad():
        expected = model(prompt).logits[0]
    # float32 sums of up to 96 terms in another order, three layers deep: a few 1e-6 of the largest value each.
    assert (torch.tensor(ours["logits"]) - expected).abs().max() < 5e-5 * expected.abs().max()
    with torch.no_grad():
        continued = model(torch.tensor([ours["prompt_tokens"] + ours["tokens"]])).logits[0]
    assert continued[len(PROMPT) - 1:-1].argmax(-1).tolist() == ours["tokens"]


def test_bf16_logits_are_as_near_to_float32_as_those_of_transformers(run_tessera, saved):
    model, folder = saved("qwen3")
    ours = generate(run_tessera, folder, "--logits", "--max-tokens", "1", "--dtype", "bf16")
    prompt = torch.tensor([ours["prompt_tokens"]])
    with torch.no_grad():
        exact = model(prompt).logits[0]
        theirs = copy.deepcopy(model).to(torch.bfloat16)(prompt).logits[0].float()
    own_error = (torch.tensor(ours["logits"]) - exact).pow(2).mean().sqrt()
    their_error = (theirs - exact).pow(2).mean().sqrt()
    assert 0 < own_error < 1.5 * their_error


@pytest.mark.parametrize("name", ["mixtral", "qwen3", "gpt_oss", "deepseek_v3"])
def test_ranks_of_any_number_give_the_same_answers(tessera, saved, name):
    _, folder = saved(name)
    jobs = [dict(prompt=PROMPT[:n], max_tokens=40, logprobs=3, temperature=t, seed=n) for n, t in [(9, 0), (30, 1)]]
    answers = []
    for layout in ("tp=1", "tp=2", "tp=4"):
        with Server(tessera, "--layout", layout, model=folder) as server:
            answers.append([server.complete(**job).choices[0] for job in jobs])
    assert answers[1] == answers[0] and answers[2] == answers[0]


def check_prompt_logprobs(places, model, ids, most):
    """vLLM's form: at each place the token itself and the likeliest, with rank, text and bytes; log softmax of transformers."""
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    assert len(places) == len(ids) and places[0] is None
    for i, (place, row) in enumerate(zip(places[1:], expected)):
        token, order = ids[i + 1], row.sort(descending=True).indices.tolist()
        assert set(place) == {str(token), *map(str, order[:most])}
        for key, entry in place.items():
            assert abs(entry["logprob"] - row[int(key)].item()) < 5e-4
            assert order[entry["rank"] - 1] == int(key)
            assert len(entry["bytes"]) == 1 and entry["decoded_token"] in (bytes(entry["bytes"]).decode(errors="replace"), "\ufffd")
        assert place[str(token)]["bytes"] == [PROMPT.encode()[i + 1]]


@pytest.mark.parametrize("name", ["qwen3", "gpt_oss"])
def test_prompt_logprobs_equal_transformers_whole_and_in_chunks(tessera, saved, name, tmp_path):
    model, folder = saved(name)
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[0].content }}")
    with Server(tessera, "--max-batch-tokens", "16", "--chat-template", template, model=folder) as server:
        ids = post(server, {"model": server.name, "prompt": PROMPT}, "/tokenize")[1]["tokens"]
        body = {"model": server.name, "prompt": PROMPT, "temperature": 0, "max_tokens": 8}
        chat = {"model": server.name, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 8}
        plain = post(server, body)[1]["choices"][0]
        for most in (0, 3, 20):
            answer = post(server, {**body, "prompt_logprobs": most, "n": 2})[1]["choices"]
            assert answer[0]["text"] == plain["text"] and answer[0]["logprobs"] is None
            assert answer[0]["prompt_logprobs"] == answer[1]["prompt_logprobs"]
            check_prompt_logprobs(answer[0]["prompt_logprobs"], model, ids, most)
            scored = post(server, {**body, "prompt_logprobs": most, "max_tokens": 0})[1]["choices"][0]
            assert scored["prompt_logprobs"] == answer[0]["prompt_logprobs"] and scored["text"] == "" and scored["finish_reason"] == "length"
            for tokens in (0, 8):
                talked = post(server, {**chat, "prompt_logprobs": most, "max_tokens": tokens}, "/v1/chat/completions")[1]
                assert talked["prompt_logprobs"] == answer[0]["prompt_logprobs"]
                assert talked["usage"]["completion_tokens"] == tokens
        echoed = post(server, {**body, "max_tokens": 0, "echo": True, "logprobs": 1, "prompt_logprobs": 1})[1]["choices"][0]
        own = [place[str(token)] for place, token in zip(echoed["prompt_logprobs"][1:], ids[1:])]
        assert echoed["logprobs"]["token_logprobs"][1:] == [entry["logprob"] for entry in own]
        assert echoed["logprobs"]["bytes"] == [[byte] for byte in PROMPT.encode()]
        for wrong, path in [({**body, "stream": True}, "/v1/completions"), ({**body, "prompt_logprobs": 21}, "/v1/completions"),
                            ({**chat, "stream": True}, "/v1/chat/completions"), ({**chat, "prompt_logprobs": -1}, "/v1/chat/completions")]:
            status, answer = post(server, {"prompt_logprobs": 1, **wrong}, path)
            assert status == 400 and answer["error"]["param"] == "prompt_logprobs"


def test_wrong_weights_are_one_readable_error(run_tessera, saved, tmp_path):
    _, folder = saved("llama")
    for source in folder.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 100}))
    result = run_tessera("generate", "--model", tmp_path, "--prompt", "x")
    assert result.returncode != 0 and result.stderr.startswith("error: ") and "gate_proj" in result.stderr
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = run_tessera("generate", "--model", tmp_path, "--prompt", "x")
    assert result.returncode != 0 and "model.safetensors" in result.stderr
