"""`tessera embed` with the official client, its vectors against Hugging Face transformers."""
import base64
import json
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import torch
import transformers

from serve_models_test import byte_tokenizer, saved  # noqa: F401  (a fixture)
from serve_openai_test import SHARED

PROTEINS = SHARED / "data/protein/mmseqs2-example-query.fasta"
VOCABULARY = SHARED / "data/tokenizer/esm2-vocab.txt"


class Embedder:
    """`tessera embed` on a free port, until the end of the `with`."""

    def __init__(self, tessera, model, *arguments):
        self.name = model.name
        self.process = subprocess.Popen([tessera, "embed", "--model", model, "--port", "0", *arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"https?://127\.0\.0\.1:(\d+)", line)
        assert found, line + self.process.stderr.read()
        self.client = openai.OpenAI(base_url=found.group(0) + "/v1", api_key="none", max_retries=0, timeout=60)
        self.url = found.group(0)

    def create(self, input, **options):
        return self.client.embeddings.create(model=self.name, input=input, **options)

    def vectors(self, input, **options):
        return np.array([entry.embedding for entry in self.create(input, **options).data], dtype=np.float32)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.process.stderr.read()


@pytest.fixture(scope="session")
def esm(tmp_path_factory):
    """(Hugging Face model, its tokenizer, its directory) of a small random ESM-2."""
    torch.manual_seed(2)
    config = transformers.EsmConfig(vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=60, num_hidden_layers=3, num_attention_heads=5,
                                    intermediate_size=96, max_position_embeddings=700, position_embedding_type="rotary", token_dropout=True,
                                    emb_layer_norm_before=False, layer_norm_eps=1e-5, initializer_range=0.2)
    model = transformers.EsmForMaskedLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5) if "LayerNorm.weight" in key or "layer_norm" in key else parameter.uniform_(-0.5, 0.5)
    folder = tmp_path_factory.mktemp("esm")
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_bytes(VOCABULARY.read_bytes())
    return model, transformers.EsmTokenizer(str(VOCABULARY)), folder


def proteins(count, longest=400):
    texts = [re.sub(r"\s", "", entry.split("\n", 1)[1]) for entry in PROTEINS.read_text().split(">")[1:]]
    return [text for text in texts if len(text) < longest][:count]


def hidden(model, ids):
    with torch.no_grad():
        out = model.base_model(torch.tensor([ids])).last_hidden_state[0]
    return out.numpy()


def unit(vector):
    return vector / np.linalg.norm(vector)


POOL = {"mean": lambda rows: rows.mean(0), "cls": lambda rows: rows[0], "last": lambda rows: rows[-1]}


@pytest.mark.parametrize("pooling", POOL)
def test_esm2_embeddings_equal_transformers(tessera, esm, pooling):
    model, tokenizer, folder = esm
    texts = proteins(7) + ["MKT<mask>A<mask>YIAK", "M", "mkt LAGV ZZ?J*"]
    with Embedder(tessera, folder, "--pooling", pooling) as server:
        answer = server.create(texts)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))
    assert [entry.index for entry in answer.data] == list(range(len(texts)))
    for entry, tokens in zip(answer.data, ids):
        # Three layers in float32 with sums in another order.
        assert np.abs(np.array(entry.embedding) - unit(POOL[pooling](hidden(model, tokens)))).max() < 2e-5


def test_a_vector_is_the_same_alone_and_among_others(tessera, esm):
    _, _, folder = esm
    texts = proteins(24)
    with Embedder(tessera, folder) as server, ThreadPoolExecutor(8) as pool:
        together = server.vectors(texts)
        alone = list(pool.map(lambda text: server.vectors(text)[0], texts))
        reversed_order = server.vectors(texts[::-1])
    with Embedder(tessera, folder, "--max-batch-tokens", "100", "--threads", "3") as server:
        small = server.vectors(texts)
    assert (together == np.array(alone)).all() and (together == reversed_order[::-1]).all() and (together == small).all()


def test_forms_of_inputs_and_answers(tessera, esm):
    _, tokenizer, folder = esm
    texts = proteins(3)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    with Embedder(tessera, folder) as server:
        expected = server.vectors(texts)
        assert (server.vectors(ids) == expected).all() and (server.vectors(ids[0]) == expected[:1]).all()
        plain = server.client.with_raw_response.embeddings.create(model=server.name, input=texts, encoding_format="base64")
        packed = [entry["embedding"] for entry in json.loads(plain.text)["data"]]
        assert (np.array([np.frombuffer(base64.b64decode(text), "<f4") for text in packed]) == expected).all()
        assert (server.vectors(texts, encoding_format="float") == expected).all()  # the client asks for base64 by itself
        short = server.vectors(texts, dimensions=10)
        assert short.shape == (3, 10)
        np.testing.assert_allclose(short, [unit(vector[:10]) for vector in expected], atol=1e-6)
        assert server.client.models.list().data[0].id == server.name
    with Embedder(tessera, folder, "--raw") as server:
        raw = server.vectors(texts)
    assert np.linalg.norm(raw, axis=1).min() > 1.1
    np.testing.assert_allclose(expected, [unit(vector) for vector in raw], atol=1e-6)


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "deepseek_v3"])
def test_decoders_are_pooled_at_their_last_token(tessera, saved, name):  # noqa: F811
    model, folder = saved(name)
    texts = ["Tiles of a mosaic", "one for each rank, side by side", "x"]
    with Embedder(tessera, folder) as server:
        vectors = server.vectors(texts)
        ids = [list(server.create(text).usage.model_dump().values())[0] for text in texts]
    assert ids == [len(text) for text in texts]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for vector, text in zip(vectors, texts):
        assert np.abs(vector - unit(hidden(model, tokenizer(text)["input_ids"])[-1])).max() < 2e-5


@pytest.mark.parametrize("options, status, said", [
    (dict(input=[]), 400, "input"), (dict(input=""), 400, "empty"), (dict(input=[[1, 2], [33]]), 400, "vocabulary of 33"),
    (dict(input=[5] * 701), 400, "701 tokens"), (dict(input="MK", dimensions=61), 400, "dimensions 61"),
    (dict(input="MK", dimensions=0), 400, "dimensions"), (dict(input="MK", encoding_format="hex"), 400, "encoding_format"),
    (dict(input="MK", extra_body={"imput": 1}), 400, "input"), (dict(input={"text": "MK"}), 400, "input"), (dict(input=[["MK"]]), 400, "input"),
    (dict(input="MK", model="other"), 404, "other")])
def test_bad_calls_are_told_once(tessera, esm, embedder, options, status, said):
    with pytest.raises(openai.APIStatusError) as error:
        embedder.client.embeddings.create(**{"model": embedder.name, **options})
    assert error.value.status_code == status and said in error.value.message


@pytest.fixture(scope="module")
def embedder(tessera, esm):
    with Embedder(tessera, esm[2]) as server:
        yield server


def test_an_encoder_continues_no_text(run_tessera, esm, tmp_path):
    _, _, folder = esm
    for command in (["generate", "--model", folder, "--prompt", "MKT"], ["serve", "--model", folder, "--port", 0]):
        result = run_tessera(*command)
        assert result.returncode != 0 and "tessera embed" in result.stderr
    (tmp_path / "vocab.txt").write_text("[PAD]\n[CLS]\nword\n")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    result = run_tessera("embed", "--model", tmp_path)
    assert result.returncode != 0 and "vocab.txt" in result.stderr and "<cls>" in result.stderr
