"""Tokenizers and token files against Hugging Face tokenizers, and against numpy reading by the format's description."""
import json
import math
import pathlib
import random
import struct

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared/data"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def random_texts(count, seed):
    """Words, code, spaces of all kinds, and characters of many scripts (all assigned since Unicode 6)."""
    random_ = random.Random(seed)
    ranges = [(0x20, 0x7E), (0xA0, 0x17F), (0x370, 0x3FF), (0x400, 0x45F), (0x5D0, 0x5EA), (0x620, 0x64A), (0x905, 0x939),
              (0xE01, 0xE2E), (0x2010, 0x2027), (0x2190, 0x21FF), (0x3041, 0x3096), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
              (0x1F600, 0x1F640), (0x0300, 0x036F), (0x1E00, 0x1EFF), (0x2460, 0x249B), (0x660, 0x669), (0xF900, 0xFA2D)]
    pieces = [" ", "  ", "\n", "\r\n", "\n\n", "\t", "\u00a0", "\u3000", "\u2003", "\u0085", "\u180e", "\u200b", "'s", "'LL",
              "don't", "the", " of", "123", "1234567", "3.14", "def f(x):", "<|endoftext|>", "<|pad", "\u017f", "e\u0301"]

    def piece():
        if random_.random() < 0.5:
            return random_.choice(pieces)
        low, high = random_.choice(ranges)
        return "".join(chr(random_.randint(low, high)) for _ in range(random_.randint(1, 4)))

    return ["".join(piece() for _ in range(random_.randint(0, 30))) for _ in range(count)]


def encode(run_tessera, tokenizer, texts, tmp_path):
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(json.dumps(text) + "\n" for text in texts))
    result = run_tessera("tokenizer", "encode", "--tokenizer", tokenizer, "--lines", "--file", lines)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def expect_equal_ids(run_tessera, tokenizer_json, texts, tmp_path):
    peer = Tokenizer.from_file(str(tokenizer_json))
    ours = encode(run_tessera, tokenizer_json, texts, tmp_path)
    assert len(ours) == len(texts)
    for text, ids in zip(texts, ours):
        assert ids == peer.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")
def test_neox_ids_of_random_unicode_equal_hugging_face(run_tessera, tmp_path):
    expect_equal_ids(run_tessera, SHARED / "tokenizer/gpt-neox-20B_tokenizer.json", random_texts(1500, 1), tmp_path)


@pytest.mark.parametrize("name,pattern,ignore_merges", [("llama3", LLAMA3, True), ("qwen2", QWEN2, False)])
def test_split_patterns_of_random_unicode_equal_hugging_face(run_tessera, tmp_path, name, pattern, ignore_merges):
    from tokenizers import Regex, normalizers
    peer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if name == "qwen2":
        peer.normalizer = normalizers.NFC()
    peer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                  pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    peer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    peer.train_from_iterator(random_texts(300, 2), trainer)
    path = tmp_path / "tokenizer.json"
    peer.save(str(path))
    expect_equal_ids(run_tessera, path, random_texts(1500, 3), tmp_path)


@pytest.fixture(scope="module")
def text_file(root, tmp_path_factory):
    """Real text that is always there: the repository's own sources, in one file."""
    path = tmp_path_factory.mktemp("text") / "sources.txt"
    sources = sorted((root / "src").rglob("*.h")) + sorted((root / "src").rglob("*.cpp"))
    # Without the end token: the trainer leaves it out, the peer's would count it as a word.
    path.write_text("\f".join(source.read_text() for source in sources).replace("<|endoftext|>", "the end"))
    return path


@pytest.fixture(scope="module")
def trained(run_tessera, text_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    result = run_tessera("tokenizer", "train", "--data", text_file, "--vocab", 1000, "--out", folder, "--json", "-")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["vocab_size"] == 1000
    return folder


def test_trained_merges_equal_those_of_hugging_face(trained, text_file):
    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=1000, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    peer.train_from_iterator([text_file.read_text()], trainer)
    ours = json.loads((trained / "tokenizer.json").read_text())["model"]
    theirs = json.loads(peer.to_str())["model"]
    assert ours["vocab"] == theirs["vocab"]
    assert [merge.split(" ") for merge in ours["merges"]] == theirs["merges"]


def test_trained_tokenizer_encodes_the_same_in_hugging_face(run_tessera, trained, tmp_path):
    expect_equal_ids(run_tessera, trained / "tokenizer.json", random_texts(500, 4), tmp_path)


def test_transformers_loads_the_trained_folder(trained):
    from transformers import AutoTokenizer
    peer = AutoTokenizer.from_pretrained(trained)
    assert peer.eos_token == "<|endoftext|>" and peer.eos_token_id == 0
    assert peer.decode(peer("int main() {}")["input_ids"]) == "int main() {}"


def read_token_file(prefix):
    """Megatron's format, by its description: the documents as lists of ids."""
    index, pos = pathlib.Path(f"{prefix}.idx").read_bytes(), 34
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, borders = struct.unpack("<QBQQ", index[9:pos])
    assert version == 1
    dtype = {8: np.uint16, 4: np.int32}[code]
    sizes = np.frombuffer(index, np.int32, sequences, pos)
    pointers = np.frombuffer(index, np.int64, sequences, pos + 4 * sequences)
    documents = np.frombuffer(index, np.int64, borders, pos + 12 * sequences)
    assert len(index) == pos + 12 * sequences + 8 * borders
    assert list(documents) == list(range(sequences + 1))
    tokens = np.fromfile(f"{prefix}.bin", dtype)
    assert len(tokens) == sizes.sum()
    starts = pointers // np.dtype(dtype).itemsize
    return [tokens[start:start + size].tolist() for start, size in zip(starts, sizes)]


def test_packed_documents_are_the_text_and_entropy_is_numpys(run_tessera, trained, text_file, tmp_path):
    result = run_tessera("data", "pack", "--tokenizer", trained, "--data", text_file, "--document-separator", "\f",
                         "--held-out", 0.3, "--out", tmp_path / "packed", "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    peer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    documents = read_token_file(report["train"]["prefix"]) + read_token_file(report["valid"]["prefix"])
    assert all(document[-1] == 0 for document in documents)
    texts = sorted(peer.decode(document[:-1], skip_special_tokens=False) for document in documents)
    assert texts == sorted(filter(None, text_file.read_text().split("\f")))
    counts = np.bincount(np.concatenate(documents))
    shares = counts[counts > 0] / counts.sum()
    assert math.isclose(report["unigram_entropy_nats"], -(shares * np.log(shares)).sum(), rel_tol=1e-9)


def test_inspect_names_a_torn_file(run_tessera, trained, text_file, tmp_path):
    assert run_tessera("data", "pack", "--tokenizer", trained, "--data", text_file, "--out", tmp_path / "x").returncode == 0
    assert run_tessera("data", "inspect", tmp_path / "x-train").returncode == 0
    binary = tmp_path / "x-train.bin"
    binary.write_bytes(binary.read_bytes()[:-1])
    result = run_tessera("data", "inspect", tmp_path / "x-train")
    assert result.returncode != 0
    assert "x-train.bin" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("content,words", [(None, "No such file"), (b"", "is empty"), (b"ab\xff", "byte 2")])
def test_bad_text_is_one_readable_line_and_writes_nothing(run_tessera, tmp_path, content, words):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    result = run_tessera("tokenizer", "train", "--data", path, "--out", tmp_path / "out")
    assert result.returncode != 0
    assert str(path) in result.stderr and words in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
