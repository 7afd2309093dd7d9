"""A Hugging Face directory with random weights of a size that serving is measured with: dense (480 M) or moe (1.3 B)."""
import argparse
import pathlib

import torch
import transformers

from start import write_tokenizer

COMMON = dict(vocab_size=32_000, hidden_size=1024, num_attention_heads=16, num_key_value_heads=8, head_dim=64,
              max_position_embeddings=8192, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
              pad_token_id=None, torch_dtype="bfloat16")
CONFIGS = {
    "dense": transformers.LlamaConfig(**COMMON, intermediate_size=4608, num_hidden_layers=24),
    "moe": transformers.Qwen3MoeConfig(**COMMON, intermediate_size=3072, num_hidden_layers=16, num_experts=32,
                                       num_experts_per_tok=4, moe_intermediate_size=768, norm_topk_prob=True,
                                       decoder_sparse_step=1),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=CONFIGS)
    parser.add_argument("out", type=pathlib.Path)
    flags = parser.parse_args()
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[flags.kind])
    model.save_pretrained(flags.out, max_shard_size="100GB")
    write_tokenizer(flags.out)
    print(f"{flags.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters")
