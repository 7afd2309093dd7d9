"""How fast a server of an 8 B-class model in int4 is ready, and whether its first request waits for anything.

    python bench/serve/start.py --tessera build/release/tessera --dir DIR [--repeats 3] [--json F]

Makes DIR first when it is not there: random packed weights (4.4 GB) of the shape of a 7.2 B Llama (32 layers of
4,096, FFN 14,336, 8 KV heads, 32,000 tokens). The file is read once before the first start, so the page cache is warm.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time
import urllib.request

import numpy

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB, BLOCKS = 4096, 14336, 32, 32, 8, 128, 32_000, 4
CONFIG = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=HIDDEN, intermediate_size=FFN,
              num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM,
              vocab_size=VOCAB, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=500000.0, torch_dtype="bfloat16")


def tile_bytes(kind, k, blocks):
    """As QuantShape::tile_bytes of src/kernels/quant.h."""
    groups = -(-k // blocks // 32)
    return groups, -(-groups * ((512 if kind == "int8" else 256) + 32) // 64) * 64


def random_tiles(kind, n, k, blocks, pool):
    groups, size = tile_bytes(kind, k, blocks)
    count = -(-n // 16) * blocks
    tiles = numpy.resize(pool, count * size).reshape(count, size)
    scale = numpy.float16(0.02 * (1 / 127 if kind == "int8" else 1 / 4))
    begin = groups * (512 if kind == "int8" else 256)
    tiles[:, begin:begin + groups * 32] = numpy.tile(numpy.frombuffer(scale.tobytes(), numpy.uint8), groups * 16)
    return tiles.reshape(-1)


def tensors():
    """(name, kind or None for bf16, n, k, blocks)"""
    yield "model.embed_tokens.weight", None, VOCAB, HIDDEN, 1
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", None, HIDDEN, 0, 1
        yield prefix + "post_attention_layernorm.weight", None, HIDDEN, 0, 1
        for name, n, k, blocks in (("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN, 1), ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN, 1),
                                   ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN, 1),
                                   ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM, BLOCKS), ("mlp.gate_proj", FFN, HIDDEN, 1),
                                   ("mlp.up_proj", FFN, HIDDEN, 1), ("mlp.down_proj", HIDDEN, FFN, BLOCKS)):
            yield f"{prefix}{name}.weight", "int4", n, k, blocks
    yield "model.norm.weight", None, HIDDEN, 0, 1
    yield "lm_head.weight", "int8", VOCAB, HIDDEN, 1


def make(folder):
    folder.mkdir(parents=True)
    pool = numpy.random.default_rng(1).integers(0, 256, 48 << 20, dtype=numpy.uint8)
    header, index, at = {}, {}, 0
    # Quantised tensors first: each lies at a multiple of 64.
    listed = sorted(tensors(), key=lambda tensor: tensor[1] is None)
    for name, kind, n, k, blocks in listed:
        if kind:
            size = -(-n // 16) * blocks * tile_bytes(kind, k, blocks)[1]
            header[name] = {"dtype": "U8", "shape": [size]}
            index[name] = {"kind": kind, "n": n, "k": k, "blocks": blocks, "xxh3": "0"}
        else:
            size = 2 * n * max(k, 1)
            header[name] = {"dtype": "BF16", "shape": [n, k] if k else [n]}
            index[name] = {"xxh3": "0"}
        header[name]["data_offsets"] = [at, at + size]
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-(8 + len(head)) % 64)
    with open(folder / "packed.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, kind, n, k, blocks in listed:
            if kind:
                file.write(random_tiles(kind, n, k, blocks, pool).data)
            else:
                values = numpy.ones(n, numpy.float32) if not k else (numpy.resize(pool, n * k).astype(numpy.float32) - 127) / 4000
                file.write((values.view(numpy.uint32) >> 16).astype(numpy.uint16).data)
    (folder / "packed.json").write_text(json.dumps(
        {"format": "tessera-packed", "version": 1, "tp_blocks": BLOCKS, "head_xxh3": "0", "tensors": index}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_tokenizer(folder)


def write_tokenizer(folder, vocab=VOCAB):
    """Every byte is a token, and every other id has a text: for models whose text means nothing."""
    alphabet = {chr(code): i for i, code in enumerate(byte_letters())} | {f"t{i}": i for i in range(256, vocab)}
    (folder / "tokenizer.json").write_text(json.dumps({
        "added_tokens": [], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": alphabet, "merges": []}}))


def byte_letters():
    """The letters that stand for the 256 bytes in byte-level tokenizers (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return plain + [256 + i for i in range(256 - len(plain))]


def ask(port, tokens=8):
    body = {"prompt": [1, 2, 3, 4, 5, 6, 7, 8], "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "model": "model"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    start = time.perf_counter()
    urllib.request.urlopen(request, timeout=120).read()
    return time.perf_counter() - start


def start_once(flags):
    begin = time.perf_counter()
    command = [flags.tessera, "serve", "--model", flags.dir, "--dtype", "bf16", "--port", "0", "--served-model-name", "model",
               "--kv-tokens", "8192", *flags.arguments]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
        line = next(line for line in server.stdout if line.startswith("serving"))
        port = int(line.split("http://")[1].split(" ")[0].rsplit(":", 1)[1])
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60).read()
        ready = time.perf_counter() - begin
        first = ask(port)
        steady = statistics.median(ask(port) for _ in range(5))
        server.terminate()
    return ready, first, steady


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", type=pathlib.Path, default="build/release/tessera")
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("arguments", nargs="*", help="More for `tessera serve`, after --")
    flags = parser.parse_args()
    if not flags.dir.exists():
        make(flags.dir)
    file = flags.dir / "packed.safetensors"
    with open(file, "rb") as data:  # warms the page cache
        while data.read(64 << 20):
            pass
    rows = []
    for _ in range(flags.repeats):
        ready, first, steady = start_once(flags)
        rows.append({"ready_s": ready, "first_request_s": first, "steady_request_s": steady, "ratio": first / steady})
        print(f"{file.stat().st_size / 1e9:.2f} GB: ready in {ready:.2f} s; first request {first:.3f} s, then {steady:.3f} s "
              f"({first / steady:.2f} times); load average {os.getloadavg()[0]:.1f}", flush=True)
    if flags.json:
        flags.json.write_text(json.dumps({"load_average": os.getloadavg()[0], "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
