#include "plan/validate/training_case.h"

// The software generation of a row, read from its source and notes.
namespace tessera::plan {
namespace {

struct SoftwareRule {
  const char* column;
  const char* part;  // that the cell holds
  const char* generation;
  Framework framework;
};
// The first rule that matches.
constexpr SoftwareRule kRules[] = {
    {"notes", "ZeRO-3, no tensor", "deepspeed-2021", Framework::deepspeed},
    {"source", "SC21", "megatron-2021", Framework::megatron},
    {"source", "MT-NLG", "deepspeed-2022", Framework::deepspeed},
    {"source", "Korthikanti", "megatron-2022", Framework::megatron},
    {"source", "bigscience", "deepspeed-2022", Framework::deepspeed},
    {"source", "GPT-NeoX", "deepspeed-2022", Framework::deepspeed},
    {"id", "megascale-megascale", "megascale-2024", Framework::megatron},
    {"source", "MegaScale", "megatron-2023", Framework::megatron},
    {"source", "llm-foundry", "llm-foundry-2023", Framework::fsdp1},
    {"source", "(FSDP", "fms-2024", Framework::fsdp1},
    {"source", "fms-fsdp", "fms-2024", Framework::fsdp1},
    {"source", "docs/performance.md", "torchtitan-2024", Framework::fsdp2},
    {"dtype", "rowwise", "torchtitan-2025-rowwise", Framework::fsdp2},
    {"source", "torchtitan", "torchtitan-2025", Framework::fsdp2},
    {"source", "JAX-Toolbox", "jax-2024", Framework::jax},
    {"source", "maxtext", "jax-2024", Framework::jax},
    {"source", "PaLM", "jax-2022", Framework::jax},
    {"source", "SimuMax", "megatron-core-0.14", Framework::megatron},
    {"source", "DeepSeek-V3", "deepseek-2024", Framework::megatron},
    {"source", "Llama 3 Herd", "torchtitan-2024", Framework::fsdp2},
    {"source", "mlcommons", "mlperf-2024", Framework::megatron},
    {"source", "Nemotron-4", "nemo-24.07", Framework::megatron},
    {"source", "NeMo 24.07", "nemo-24.07", Framework::megatron},
    {"source", "performance_long_sequence", "nemo-24.07", Framework::megatron},
    {"source", "Megatron-LM README", "megatron-core-0.8", Framework::megatron},
    {"source", "Megatron-LM repo", "nemo-25.04", Framework::megatron},
    {"source", "NeMo 25.0", "nemo-25.04", Framework::megatron},
    {"source", "25.09", "bridge-25.09", Framework::megatron},
    {"source", "25.11", "bridge-25.11", Framework::megatron},
    {"source", "26.02.01", "bridge-26.02.01", Framework::megatron},
    {"source", "26.02", "bridge-26.02", Framework::megatron},
    {"source", "26.04.01", "bridge-26.04.01", Framework::megatron},
    {"source", "26.04", "bridge-26.04", Framework::megatron},
    {"source", "26.06", "bridge-26.06", Framework::megatron},
    {"source", "26.08", "bridge-26.06", Framework::megatron},
    {"source", "skills/", "bridge-plain", Framework::megatron},
    {"source", "LLaMA paper", "megatron-2023", Framework::megatron},
    {"source", "OPT", "megatron-2021", Framework::megatron},
};

// Flash attention came in the second half of 2022; before it the GPT models trained with dropout.
bool before_flash(const std::string& generation) {
  return generation == "megatron-2021" || generation == "megatron-2022" || generation == "deepspeed-2022" ||
         generation == "deepspeed-2021" || generation == "jax-2022";
}

void read_memory_options(RowReader& row, const std::string& generation, TrainingOptions& options) {
  options.flash_attention = !before_flash(generation);
  options.dropout =
      generation == "megatron-2021" || generation == "megatron-2022" || generation == "deepspeed-2021";
  options.fused_loss = row.mentions("notes", "fused cross entropy") || row.mentions("source", "202506") ||
                       generation == "llm-foundry-2023";
  bool torch_sharded = options.framework == Framework::fsdp1 || options.framework == Framework::fsdp2;
  options.gradient_bytes = torch_sharded && !row.mentions("notes", "DEFAULT") ? 2 : 4;
  if (row.text("dtype") == "fp16") options.gradient_bytes = 2;
  // DeepSpeed's BF16Optimizer: 16-bit gradients added into whole float32 ones.
  options.shard_gradient_accumulator = !row.mentions("zero_stage", "BF16Optimizer");
  if (row.mentions("model", "Moonlight")) {  // its recipe: precision-aware optimizer
    options.gradient_bytes = options.moment_bytes = 2;
    row.assume("optimizer", "bf16 gradients and moments");
  }
  if (generation == "deepseek-2024") {  // its report, section 3.3.3
    options.moment_bytes = 2, options.narrow_activations = true;
    row.assume("optimizer", "bf16 moments");
    row.assume("activations", "expert inputs of SwiGLU in 8 bits, attention's result in 12");
  }
  if (generation == "megatron-2021" || generation == "megatron-2022") options.gradient_bytes = 4;
  // NVIDIA's performance recipes add gradients in 16 bits.
  bool recipe = generation.starts_with("nemo") || generation.starts_with("bridge") ||
                generation.starts_with("mlperf") || generation == "megatron-core-0.8";
  if (recipe) options.gradient_bytes = 2;
}

void read_time_options(RowReader& row, const std::string& generation, TrainingOptions& options) {
  options.overlap_dp = !before_flash(generation) && generation != "megatron-core-0.14";
  options.overlap_tp = row.mentions("notes", "async TP") || row.mentions("notes", "TP communication overlap");
  // Recipes of 26.06 hide expert all-to-all on Blackwell: Qwen3 gained a third there at an unchanged layout and
  // nothing on Hopper (inferred from the calibration part; the release does not say it in the row).
  bool hides_experts = generation == "bridge-26.06" && !row.mentions("gpu", "H100");
  options.overlap_ep = row.mentions("notes", "EP overlap") || hides_experts;
  options.cuda_graphs = row.mentions("notes", "CUDA graphs") && row.mentions("id", "11616");
}

}  // namespace

std::string software_of_row(RowReader& row, TrainingOptions& options) {
  std::string generation;
  for (const SoftwareRule& rule : kRules) {
    if (!row.mentions(rule.column, rule.part)) continue;
    generation = rule.generation;
    options.framework = rule.framework;
    break;
  }
  if (generation.empty()) {
    generation = newest_software().name;
    row.assume("software", generation);
  }
  options.software = generation;
  options.interconnect = row.text("interconnect");
  read_memory_options(row, generation, options);
  read_time_options(row, generation, options);
  return generation;
}

}  // namespace tessera::plan
