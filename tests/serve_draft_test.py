"""A draft model guesses, and no answer changes: greedy, sampled, alone, together, cancelled."""
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers

from serve_models_test import COMMON, PROMPT, byte_tokenizer, saved  # noqa: F401  (a fixture)
from serve_openai_test import MODEL, Server

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")

STORY = "Once upon a time there was a little girl named Lily. She"


def counts(server):
    return [server.metric(f"spec_decode_num_{name}_tokens_total") for name in ("draft", "accepted")]


def test_a_draft_that_is_the_model_itself_is_always_right(tessera):
    jobs = [dict(prompt=STORY[:20 + 5 * i], max_tokens=60, temperature=i % 2, seed=i, logprobs=2) for i in range(4)]
    with Server(tessera) as server:
        plain = [server.complete(**job).choices[0] for job in jobs]
    with Server(tessera, "--draft", MODEL, "--guess", "6") as server:
        assert [server.complete(**job).choices[0] for job in jobs] == plain
        drafted, accepted = counts(server)
        # Wrong are only guesses behind an end that the answer came to.
        assert drafted > 100 and accepted > 0.9 * drafted


@pytest.mark.parametrize("name", ["gpt_oss", "gpt2"])
def test_a_draft_of_another_kind_changes_no_answer(tessera, saved, name):  # noqa: F811
    _, folder = saved("qwen3")
    _, draft = saved(name)
    jobs = [dict(prompt=(PROMPT * 2)[i:20 + 7 * i], max_tokens=15 + i, temperature=i % 2, seed=i, logprobs=1) for i in range(6)]
    with Server(tessera, model=folder) as server:
        plain = [server.complete(**job).choices[0] for job in jobs]
    # Room for two of the six, and prompts that are read in several passes.
    for options in ([], ["--kv-tokens", "256", "--max-batch-tokens", "16", "--max-running", "6"]):
        with Server(tessera, "--draft", draft, *options, model=folder) as server, ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda job: server.complete(**job).choices[0], jobs)) == plain
            assert counts(server)[0] > 0


def test_sampled_answers_have_the_same_distribution(tessera, saved):  # noqa: F811
    """First three tokens of many seeds, with a draft that is often wrong, against the model's own probabilities."""
    model, folder = saved("qwen3")
    _, draft = saved("llama")
    seeds = 400
    with Server(tessera, "--draft", draft, "--guess", "4", model=folder) as server, ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda seed: server.complete(PROMPT, max_tokens=3, temperature=0.6, seed=seed, logprobs=0).choices[0].logprobs.tokens, range(seeds)))
    prompt = torch.tensor([list(PROMPT.encode())])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer(PROMPT)["input_ids"]
    with torch.no_grad():
        expected = (model(torch.tensor([ids])).logits[0, -1] / 0.6).softmax(-1)
    seen = Counter(tokenizer(tokens[0])["input_ids"][0] if len(tokens[0].encode()) == 1 else -1 for tokens in texts)
    likely = [token for token in expected.argsort(descending=True).tolist() if expected[token] * seeds >= 5 and token in {b for b in seen}]
    assert prompt.numel() and likely
    for token in likely:  # five standard deviations of a count
        mean = float(expected[token]) * seeds
        assert abs(seen[token] - mean) < 5 * (mean * (1 - float(expected[token]))) ** 0.5


def test_cancelled_requests_leave_nothing_behind(tessera):
    with Server(tessera, "--draft", MODEL, "--kv-tokens", "2048") as server:
        for _ in range(20):
            stream = server.client.completions.create(model=server.name, prompt=STORY, max_tokens=300, stream=True)
            next(iter(stream))
            stream.close()
        server.wait_for("kv_cache_usage_perc", 0)
        drafted = counts(server)[0]
        server.complete(STORY, max_tokens=40)
        assert counts(server)[0] > drafted


def test_a_draft_of_another_vocabulary_is_refused(run_tessera, saved, tmp_path):  # noqa: F811
    _, folder = saved("qwen3")
    sizes = dict(COMMON, vocab_size=300)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).save_pretrained(tmp_path)
    byte_tokenizer(tmp_path / "tokenizer.json")
    result = run_tessera("serve", "--model", folder, "--port", "0", "--draft", tmp_path)
    assert result.returncode != 0 and "300 tokens" in result.stderr and "--draft" in result.stderr
