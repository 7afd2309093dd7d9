"""llama.cpp on the weights of a Hugging Face directory: writes them as GGUF, then times decoding of several
sequences and one long prompt, the same work as bench/serve.cpp. Needs llama-cpp-python, gguf and numpy alone.

    python bench/serve/llama_peer.py --model DIR --kind q8_0 --gguf FILE --json OUT [--batch 1 8 16] [--logits TOKENS...]
"""
import argparse
import json
import pathlib
import time

import gguf
import numpy

KINDS = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def load_tensors(folder):
    """name -> float32 array, from bf16 or float32 safetensors."""
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = numpy.frombuffer(raw, numpy.uint8, end - begin, 8 + length + begin)
        if entry["dtype"] == "BF16":
            data = (data.view(numpy.uint16).astype(numpy.uint32) << 16)
        tensors[name] = data.view(numpy.float32).reshape(entry["shape"])
    return tensors


def write_gguf(folder, kind, path):
    config = json.loads((folder / "config.json").read_text())
    moe = config["model_type"] == "qwen3_moe"
    experts_per_layer = config.get("num_experts") or config.get("num_local_experts")
    tensors = load_tensors(folder)
    writer = gguf.GGUFWriter(path, "qwen3moe" if moe else "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    if moe:
        writer.add_expert_count(experts_per_layer)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])

    def add(name, values, quantised):
        if not quantised:
            return writer.add_tensor(name, values.astype(numpy.float32))
        chosen = gguf.GGMLQuantizationType.Q8_0 if name in ("output.weight", "token_embd.weight") else KINDS[kind]
        writer.add_tensor(name, gguf.quants.quantize(values, chosen), raw_dtype=chosen)

    add("token_embd.weight", tensors["model.embed_tokens.weight"], True)
    add("output_norm.weight", tensors["model.norm.weight"], False)
    add("output.weight", tensors["lm_head.weight"], True)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for theirs, ours in NAMES.items():
            values = tensors.get(prefix + theirs + ".weight")
            if values is None:
                continue
            if not moe and ours in ("attn_q", "attn_k"):  # llama's rotary embedding pairs neighbours
                heads = config["num_attention_heads" if ours == "attn_q" else "num_key_value_heads"]
                values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
            add(f"blk.{layer}.{ours}.weight", values, values.ndim == 2 and ours != "ffn_gate_inp")
        for part in ("gate", "up", "down") if moe else ():
            experts = [tensors[f"{prefix}mlp.experts.{e}.{part}_proj.weight"] for e in range(experts_per_layer)]
            add(f"blk.{layer}.ffn_{part}_exps.weight", numpy.stack(experts), True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Llama:
    def __init__(self, path, threads, sequences, context):
        import llama_cpp as api
        self.api = api
        self.log = api.llama_log_callback(lambda *_: None)
        api.llama_log_set(self.log, None)
        api.llama_backend_init()
        self.model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        assert self.model, f"llama.cpp cannot load {path}"
        options = api.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = context, 2048, 512
        options.n_threads = options.n_threads_batch = threads
        options.n_seq_max = sequences
        self.context = api.llama_init_from_model(self.model, options)
        assert self.context, "llama.cpp cannot make a context"
        self.vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(2048, 0, sequences)

    def step(self, entries):
        """entries: (token, position, sequence, wanted); the logits of those wanted."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        assert self.api.llama_decode(self.context, batch) == 0, "llama_decode failed"
        rows = [self.api.llama_get_logits_ith(self.context, i) for i, entry in enumerate(entries) if entry[3]]
        return [numpy.ctypeslib.as_array(row, (self.vocab,)) for row in rows]

    def clear(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)


def prompt_of(seed, sequence, length, vocab):
    return [(seed * 7919 + sequence * 104729 + i * 31 + i * i * 7) % vocab for i in range(length)]


def decode_rate(llama, batch, prompt, tokens, seed):
    llama.clear()
    last = [0] * batch
    for s in range(batch):
        text = prompt_of(seed, s, prompt, llama.vocab)
        rows = llama.step([(token, i, s, i == prompt - 1) for i, token in enumerate(text)])
        last[s] = int(rows[0].argmax())
    start = time.perf_counter()
    for i in range(tokens - 1):
        rows = llama.step([(last[s], prompt + i, s, True) for s in range(batch)])
        last = [int(row.argmax()) for row in rows]
    return batch * (tokens - 1) / (time.perf_counter() - start)


def prefill_rate(llama, length, seed):
    llama.clear()
    text = prompt_of(seed, 0, length, llama.vocab)
    start = time.perf_counter()
    llama.step([(token, i, 0, i == length - 1) for i, token in enumerate(text)])
    return length / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--gguf", type=pathlib.Path, required=True, help="Made when it is not there")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8, 16])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prefill", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--logits", type=int, nargs="*", help="Only the logits after these tokens")
    flags = parser.parse_args()
    if not flags.gguf.exists():
        write_gguf(flags.model, flags.kind, flags.gguf)
    if flags.logits:
        llama = Llama(flags.gguf, flags.threads, 1, 2048)
        rows = llama.step([(token, i, 0, True) for i, token in enumerate(flags.logits)])
        flags.json.write_text(json.dumps([row.tolist() for row in rows]))
        return
    result = {"decode": {}}
    for batch in flags.batch:
        llama = Llama(flags.gguf, flags.threads, batch, batch * (flags.prompt + flags.tokens + 256))
        rate = max(decode_rate(llama, batch, flags.prompt, flags.tokens, seed) for seed in range(flags.repeats))
        result["decode"][batch] = {"tokens_per_s": rate}
        print(f"llama.cpp decode, {batch:2} sequences: {rate:7.1f} tokens/s", flush=True)
    if flags.prefill:
        llama = Llama(flags.gguf, flags.threads, 1, flags.prefill + 256)
        rate = max(prefill_rate(llama, flags.prefill, seed) for seed in range(flags.repeats))
        result["prefill"] = {"tokens": flags.prefill, "tokens_per_s": rate}
        print(f"llama.cpp prefill of {flags.prefill}: {rate:7.1f} tokens/s", flush=True)
    flags.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
