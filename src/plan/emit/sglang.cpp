// Flags of `python -m sglang.launch_server`, 0.5.23.
#include "plan/emit/targets.h"

namespace tessera::plan {

Result<std::string> emit_sglang(const serving::SearchRequest& request, const ServingRole& role) {
  const serving::WorkerLayout& l = role.layout;
  Flags out("python -m sglang.launch_server");
  out.set("--model-path", "MODEL");
  // Attention data parallelism divides the tensor-parallel ranks.
  out.set("--tp-size", l.tp * l.dp);
  if (l.dp > 1) out.set("--attn-dp-size", l.dp);
  if (l.pp > 1) out.set("--pp-size", l.pp);
  if (l.moe_ep > 1) out.set("--ep-size", l.moe_ep);
  out.set("--max-running-requests", role.sequences * l.dp);
  out.set("--chunked-prefill-size", static_cast<int64_t>(request.engine.budget_tokens));
  out.set("--mem-fraction-static", request.engine.memory_share);
  out.set("--kv-cache-dtype", request.formats.kv_bytes < 2 ? "fp8_e4m3" : "auto");
  set_weight_format(out, request);
  if (request.speculation.depth > 0) {
    out.set("--speculative-algorithm", "NEXTN"), out.set("--speculative-num-steps", request.speculation.depth);
    out.set("--speculative-eagle-topk", 1);
    out.set("--speculative-num-draft-tokens", request.speculation.depth + 1);
  }
  if (role.phase != ServingRole::both)
    out.set("--disaggregation-mode", role.phase == ServingRole::prompts ? "prefill" : "decode");
  return out.text();
}

}  // namespace tessera::plan
