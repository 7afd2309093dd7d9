// Flags of `vllm serve`, 0.33.0.
#include "plan/emit/targets.h"

namespace tessera::plan {

Result<std::string> emit_vllm(const serving::SearchRequest& request, const ServingRole& role) {
  const serving::WorkerLayout& l = role.layout;
  bool whole_experts = l.moe_ep > 1;
  if (whole_experts && l.moe_tp > 1)
    return invalid(
        "vLLM keeps experts whole on one rank each or splits every one over all ranks, not {}; plan with "
        "--layout ...,ep={}",
        to_string(l), l.tp * l.dp);
  Flags out("vllm serve MODEL");
  out.set("--tensor-parallel-size", l.tp);
  if (l.pp > 1) out.set("--pipeline-parallel-size", l.pp);
  if (l.dp > 1) out.set("--data-parallel-size", l.dp);
  if (whole_experts) out.flag("--enable-expert-parallel");
  out.set("--max-num-seqs", role.sequences);
  out.set("--max-num-batched-tokens", static_cast<int64_t>(request.engine.budget_tokens));
  out.set("--gpu-memory-utilization", request.engine.memory_share);
  out.set("--kv-cache-dtype", request.formats.kv_bytes < 2 ? "fp8" : "auto");
  set_weight_format(out, request);
  if (request.speculation.depth > 0) {
    out.set("--spec-method", "mtp"), out.set("--spec-tokens", request.speculation.depth);
    out.note("drafting by the model's own MTP layers; another drafter: --spec-model");
  }
  if (role.phase != ServingRole::both)
    out.set("--kv-transfer-config",
            fmt::format("'{{\"kv_connector\": \"NixlConnector\", \"kv_role\": \"{}\"}}'",
                        role.phase == ServingRole::prompts ? "kv_producer" : "kv_consumer"));
  return out.text();
}

}  // namespace tessera::plan
