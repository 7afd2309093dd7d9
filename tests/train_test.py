"""`tessera train`: resuming, other layouts, what Hugging Face makes of the result, and mistakes."""
import json
import re

import pytest

EXACT = ["numerics=exact", "optimizer.decay_steps=20"]


def train(run_tessera, root, run_dir, *overrides, processes=1, example="moe-small"):
    launch = ["launch", "-n", processes, "--"] if processes > 1 else []
    result = run_tessera(*launch, "train", "--config", root / f"examples/{example}.toml", f"train.run_dir={run_dir}", *overrides)
    assert result.returncode == 0, result.stderr
    return re.search(r"weights ([0-9a-f]{16}) after", result.stdout)[1]


def test_resuming_in_another_layout_gives_the_bits_of_an_unbroken_run(run_tessera, root, tmp_path):
    whole = train(run_tessera, root, tmp_path / "whole", *EXACT, "train.steps=20")
    half = train(run_tessera, root, tmp_path / "parts", *EXACT, "train.steps=10")
    assert half != whole
    parts = train(run_tessera, root, tmp_path / "parts", *EXACT, "train.steps=20", "layout=fsdp=2,ep=2,pp=2", processes=4)
    assert parts == whole
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(20))


@pytest.mark.parametrize("example", ["dense-small", "moe-small"])
def test_transformers_gives_the_same_logits_for_what_was_trained(run_tessera, root, tmp_path, example):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from serve_models_test import byte_tokenizer

    train(run_tessera, root, tmp_path, "train.steps=12", "layout=fsdp=2,tp=2", processes=4, example=example)
    checkpoint = tmp_path / "checkpoints/step-12"
    byte_tokenizer(checkpoint / "tokenizer.json")
    ours = json.loads(run_tessera("generate", "--model", checkpoint, "--prompt", "tile by tile", "--logits", "--max-tokens", 4,
                                  "--json", "-").stdout)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor([ours["prompt_tokens"]])).logits[0]
    assert (torch.tensor(ours["logits"]) - expected).abs().max() < 5e-5 * expected.abs().max()


@pytest.mark.parametrize("overrides,words", [
    (["optimizer.lerning_rate=1"], "learning_rate"),
    (["layout=tp=3"], "tp_blocks"),
    (["work.global_batch=13", "layout=dp=2"], "dp*fsdp"),
    (["model.model_type=lama"], "llama"),
    (["work.seq=0"], "work.seq"),
    (["data.source=files", "data.train=nowhere/train"], "nowhere/train"),
    (["layout=dp=2"], "tessera launch -n 2"),
])
def test_mistakes_give_one_readable_error(run_tessera, root, overrides, words):
    result = run_tessera("train", "--config", root / "examples/dense-small.toml", *overrides)
    assert result.returncode != 0
    assert result.stderr.count("error:") == 1 and words in result.stderr, result.stderr
