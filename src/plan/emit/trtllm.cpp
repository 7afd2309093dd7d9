// The YAML of `trtllm-serve MODEL --config FILE` (TensorRT-LLM 1.4, PyTorch backend).
#include <fmt/format.h>

#include "plan/emit/targets.h"

namespace tessera::plan {

Result<std::string> emit_trtllm(const serving::SearchRequest& request, const ServingRole& role) {
  const serving::WorkerLayout& l = role.layout;
  if (l.tp > 1 && l.dp > 1)
    return invalid(
        "TensorRT-LLM's attention data parallelism takes whole attention on each rank, not {}; plan with "
        "--layout tp=1,dp={}",
        to_string(l), l.tp * l.dp);
  std::string text = fmt::format("# trtllm-serve MODEL --config FILE\ntensor_parallel_size: {}\n", l.tp * l.dp);
  text += fmt::format("pipeline_parallel_size: {}\nenable_attention_dp: {}\n", l.pp, l.dp > 1);
  if (request.model.is_moe())
    text += fmt::format("moe_expert_parallel_size: {}\nmoe_tensor_parallel_size: {}\n", l.moe_ep, l.moe_tp);
  text += fmt::format("max_batch_size: {}\nmax_num_tokens: {}\n", role.sequences,
                      static_cast<int64_t>(request.engine.budget_tokens));
  text +=
      fmt::format("enable_chunked_prefill: {}\n", request.engine.prefill == serving::PrefillPolicy::chunked);
  text += fmt::format("kv_cache_config:\n  free_gpu_memory_fraction: {}\n  dtype: {}\n",
                      request.engine.memory_share, request.formats.kv_bytes < 2 ? "fp8" : "auto");
  if (request.speculation.depth > 0)
    text += fmt::format("speculative_config:\n  decoding_type: MTP\n  max_draft_len: {}\n",
                        request.speculation.depth);
  if (role.phase != ServingRole::both) text += "cache_transceiver_config:\n  backend: NIXL\n";
  if (!as_published(request)) text += "# planned weights in another format: MODEL must be a checkpoint in it\n";
  return text;
}

}  // namespace tessera::plan
