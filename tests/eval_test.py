"""`tessera eval` against the loss that transformers computes on the same tokens."""
import json
import struct

import numpy as np
import pytest
import torch

SEQ, SEQUENCES, VOCAB = 32, 6, 128


def write_tokens(prefix, documents):
    """Megatron's token file of 16-bit ids, one sequence a document."""
    tokens = np.concatenate(documents).astype("<u2")
    prefix.with_suffix(".bin").write_bytes(tokens.tobytes())
    lengths = np.array([len(d) for d in documents], "<i4")
    pointers = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype("<i8") * 2
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(documents), len(documents) + 1)
    index = np.arange(len(documents) + 1, dtype="<i8")
    prefix.with_suffix(".idx").write_bytes(header + lengths.tobytes() + pointers.tobytes() + index.tobytes())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_loss_equals_transformers(run_tessera, model, tmp_path):
    from transformers import AutoModelForCausalLM

    tokens = torch.randint(0, VOCAB, (SEQ * SEQUENCES + 1,))
    write_tokens(tmp_path / "valid", [tokens.numpy()])
    result = run_tessera("eval", "--model", model, "--data", tmp_path / "valid", "--seq", SEQ, "--batch", 3, "--precision", "float32",
                         "--json", tmp_path / "eval.json")
    assert result.returncode == 0, result.stderr
    ours = json.loads((tmp_path / "eval.json").read_text())
    assert ours["sequences"] == SEQUENCES and ours["tokens"] == SEQ * SEQUENCES
    inputs = tokens[:-1].view(SEQUENCES, SEQ)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(inputs).logits
    theirs = torch.nn.functional.cross_entropy(logits.view(-1, VOCAB), tokens[1:]).item()
    assert abs(ours["loss"] - theirs) < 1e-5 * theirs
    assert ours["perplexity"] == pytest.approx(np.exp(theirs), rel=1e-4)


def test_a_torn_token_file_is_named(run_tessera, model, tmp_path):
    write_tokens(tmp_path / "valid", [np.arange(100)])
    data = (tmp_path / "valid.bin").read_bytes()
    (tmp_path / "valid.bin").write_bytes(data[:-10])
    result = run_tessera("eval", "--model", model, "--data", tmp_path / "valid", "--seq", SEQ)
    assert result.returncode != 0 and "valid" in result.stderr and result.stderr.count("error:") == 1


def test_a_sequence_longer_than_the_model_is_refused(run_tessera, model, tmp_path):
    write_tokens(tmp_path / "valid", [np.arange(100)])
    result = run_tessera("eval", "--model", model, "--data", tmp_path / "valid", "--seq", 65)
    assert result.returncode != 0 and "64 positions" in result.stderr
