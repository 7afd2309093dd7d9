"""A checkpoint's own multi-token-prediction layer guesses (--draft mtp): the guesses are those of the published description
(DeepSeek-V3, arXiv 2412.19437, section 2.2), computed here with modules of transformers, and no answer changes."""
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.deepseek_v3 import modeling_deepseek_v3

from serve_models_test import CONFIGS, PROMPT, byte_tokenizer, saved  # noqa: F401  (a fixture)
from serve_openai_test import Server

LAYERS, HIDDEN = CONFIGS["deepseek_v3"].num_hidden_layers, CONFIGS["deepseek_v3"].hidden_size


class Reference:
    """The model, and the layer behind it. Blocks add little to what an embedding says, so that both often agree, and not always;
    the layer's attention adds more, so that its keys decide guesses."""

    def __init__(self, folder):
        torch.manual_seed(11)
        config = transformers.DeepseekV3Config(**{**CONFIGS["deepseek_v3"].to_dict(), "num_hidden_layers": LAYERS + 1})
        whole = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        self.token_norm, self.hidden_norm, self.last_norm = (modeling_deepseek_v3.DeepseekV3RMSNorm(HIDDEN, config.rms_norm_eps) for _ in range(3))
        self.join = torch.nn.Linear(2 * HIDDEN, HIDDEN, bias=False)
        with torch.no_grad():
            for name, parameter in whole.named_parameters():
                if name.endswith("o_proj.weight") or name.endswith("down_proj.weight") or name.endswith(".down_proj"):
                    parameter.mul_(0.5 if name == f"model.layers.{LAYERS}.self_attn.o_proj.weight" else 0.02)
            for norm in (self.token_norm, self.hidden_norm):
                norm.weight.uniform_(0.15, 0.25)
            self.last_norm.weight.copy_(whole.model.norm.weight)
            self.join.weight.normal_(0, 0.04)
            self.join.weight[:, :HIDDEN] += torch.eye(HIDDEN)
        whole.save_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        behind = f"model.layers.{LAYERS}."
        tensors |= {behind + "enorm.weight": self.token_norm.weight, behind + "hnorm.weight": self.hidden_norm.weight,
                    behind + "eh_proj.weight": self.join.weight, behind + "shared_head.norm.weight": self.last_norm.weight,
                    behind + "shared_head.head.weight": whole.lm_head.weight.clone(), behind + "embed_tokens.weight": whole.model.embed_tokens.weight}
        save_file({name: tensor.detach().clone() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": LAYERS, "num_nextn_predict_layers": 1}))
        byte_tokenizer(folder / "tokenizer.json")
        self.block = whole.model.layers[LAYERS]
        whole.model.layers = whole.model.layers[:LAYERS]
        whole.config.num_hidden_layers = whole.model.config.num_hidden_layers = LAYERS
        self.model = whole

    def ahead(self, hidden, tokens):
        """h' of each pair (hidden state of a token, the next token), which are the inputs of one run of the layer."""
        embedded = self.model.model.embed_tokens(torch.tensor([tokens]))
        x = self.join(torch.cat([self.token_norm(embedded), self.hidden_norm(hidden)], -1))
        positions = torch.arange(len(tokens))[None]
        mask = torch.full((len(tokens), len(tokens)), float("-inf")).triu(1)[None, None]
        out = self.block(x, attention_mask=mask, position_ids=positions, position_embeddings=self.model.model.rotary_emb(x, positions))
        return self.last_norm(out[0] if isinstance(out, tuple) else out)

    @torch.no_grad()
    def guesses(self, known, count):
        hidden = self.model.model(torch.tensor([known[:-1]]), use_cache=False).last_hidden_state
        tokens = list(known[1:])
        for _ in range(count):
            ahead = self.ahead(hidden, tokens)[:, -1:]
            tokens.append(int(self.model.lm_head(ahead).argmax()))
            hidden = torch.cat([hidden, ahead], 1)
        return tokens[len(known) - 1:]

    def counts(self, prompt, answer, most):
        """Guesses made and right while `answer` was found, with the server's rule of how many to make (serve/guesses.h)."""
        made = right_ones = pause_left = 0
        length, pause, at = most, 1, 1
        while at < len(answer):
            count = 0 if pause_left else min(length, len(answer) - at - 1)
            pause_left = max(pause_left - 1, 0)
            right = 0
            for guess in self.guesses(prompt + answer[:at], count):
                if guess != answer[at + right]:
                    break
                right += 1
            at += right + 1
            if count == 0:
                continue
            made, right_ones = made + count, right_ones + right
            length = min(most, max(length, 2 * right)) if right == count else min(most, right + 1)
            pause = 1 if right else min(2 * pause, 16)
            pause_left = 0 if right else pause
        return made, right_ones


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mtp")
    return Reference(folder), folder


def counts(server):
    return tuple(int(server.metric(f"spec_decode_num_{name}_tokens_total")) for name in ("draft", "accepted"))


@pytest.mark.parametrize("most", [1, 3])
def test_guesses_are_those_of_the_published_layer(tessera, reference, most):
    layer, folder = reference
    expected, seen = [0, 0], []
    prompts = [PROMPT, (PROMPT * 2)[5:60], "Once"]
    for batch_tokens in (512, 16):
        with Server(tessera, "--draft", "mtp", "--guess", str(most), "--max-batch-tokens", str(batch_tokens), model=folder) as server:
            answers = [server.complete(prompt, max_tokens=40, temperature=0, logprobs=0).choices[0].text for prompt in prompts]
            seen.append((counts(server), answers))
    with Server(tessera, model=folder) as server:
        assert answers == [server.complete(prompt, max_tokens=40, temperature=0, logprobs=0).choices[0].text for prompt in prompts]
    for prompt in prompts:
        known = list(prompt_ids(folder, prompt))
        answer = known[:]
        with torch.no_grad():
            for _ in range(40):
                answer.append(int(layer.model(torch.tensor([answer]), use_cache=False).logits[0, -1].argmax()))
        made, right = layer.counts(known, answer[len(known):], most)
        expected = [expected[0] + made, expected[1] + right]
    assert seen[0] == seen[1]  # also from prompts that came in chunks
    assert seen[0][0] == tuple(expected)
    made, right = expected
    assert 0.1 * made < right < 0.95 * made


def prompt_ids(folder, text):
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))(text)["input_ids"]


def test_no_answer_changes(tessera, reference):
    """Greedy and sampled, together in a cache that is too small, from prompts that share their beginnings, in few bits."""
    _, folder = reference
    jobs = [dict(prompt=(PROMPT * 2)[:34 + 5 * (i % 3)], max_tokens=40 + i, temperature=0.7 * (i % 2), seed=i, logprobs=2) for i in range(9)]
    for options in ([], ["--dtype", "bf16", "--kv", "int8"]):
        with Server(tessera, *options, model=folder) as server:
            plain = [server.complete(**job).choices[0] for job in jobs]
        for tight in ([], ["--kv-tokens", "128", "--max-batch-tokens", "16", "--max-running", "6", "--kv-host-tokens", "256"]):
            with Server(tessera, "--draft", "mtp", *options, *tight, model=folder) as server, ThreadPoolExecutor(6) as pool:
                for _ in range(20):  # until requests met that do not fit at once
                    assert list(pool.map(lambda job: server.complete(**job).choices[0], jobs)) == plain
                    if not tight or server.metric("num_preemptions_total") > 0:
                        break
                made, right = counts(server)
                assert 0 < right < made
                assert server.metric("prefix_cache_hits_total") > 0
                assert not tight or server.metric("num_preemptions_total") > 0
                server.wait_for("kv_cache_usage_perc", 0)


def test_prompts_from_prefill_workers_bring_the_keys_of_the_layer(tessera, reference):
    _, folder = reference
    jobs = [dict(prompt=prompt, max_tokens=40, temperature=0, logprobs=0) for prompt in (PROMPT, (PROMPT * 2)[5:60], (PROMPT * 2)[3:70])]
    with Server(tessera, model=folder) as server:
        plain = [server.complete(**job).choices[0] for job in jobs]
    seen = []
    for apart in ([], ["--layout", "dp=1", "--prefill-workers", "1", "--prefill-from", "32"]):
        with Server(tessera, "--draft", "mtp", "--guess", "3", *apart, model=folder) as server:
            assert [server.complete(**job).choices[0] for job in jobs] == plain
            seen.append(counts(server))
            assert not apart or server.metrics()[("tessera:prefills_received_total", None)] > 0
    assert 0 < seen[0][1] < seen[0][0], seen
    # A prompt that was brought lacks its last hidden state: one key of the layer is made without it.
    assert abs(seen[1][1] - seen[0][1]) <= 0.2 * seen[0][0]


def test_a_model_without_the_layer_is_refused(run_tessera, saved):  # noqa: F811
    for name in ("qwen3", "deepseek_v3"):
        _, folder = saved(name)
        result = run_tessera("serve", "--model", folder, "--port", "0", "--draft", "mtp")
        assert result.returncode != 0 and "no multi-token-prediction layer" in result.stderr and str(folder) in result.stderr


def test_several_processes_are_refused(run_tessera, reference):
    _, folder = reference
    result = run_tessera("serve", "--model", folder, "--port", "0", "--draft", "mtp", "--layout", "tp=2")
    assert result.returncode != 0 and "one process" in result.stderr and "tp=2" in result.stderr
