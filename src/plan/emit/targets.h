// One function a tool, behind emit.h.
#pragma once

#include "plan/emit/emit.h"
#include "plan/emit/flags.h"

namespace tessera::plan {

Result<std::string> emit_tessera(const GpuPlanRequest& request, const TrainingSetup& setup);
Result<std::string> emit_tessera(const Request& request, const Prediction& best);
Result<std::string> emit_megatron(const GpuPlanRequest& request, const TrainingSetup& setup);
Result<std::string> emit_torchtitan(const GpuPlanRequest& request, const TrainingSetup& setup);
Result<std::string> emit_deepspeed(const GpuPlanRequest& request, const TrainingSetup& setup);

// One role of a deployment: workers that do both phases, or prompts, or answers.
struct ServingRole {
  enum Phase { both, prompts, answers } phase = both;
  serving::WorkerLayout layout;
  int64_t workers = 1;
  int64_t sequences = 1;  // at once, of one attention rank
};
Result<std::string> emit_tessera(const serving::SearchRequest& request, const ServingRole& role);
Result<std::string> emit_vllm(const serving::SearchRequest& request, const ServingRole& role);
Result<std::string> emit_sglang(const serving::SearchRequest& request, const ServingRole& role);
Result<std::string> emit_trtllm(const serving::SearchRequest& request, const ServingRole& role);

// Whether weights stay in the formats that the model is published in.
bool as_published(const serving::SearchRequest& request);
// vLLM and SGLang make fp8 of published weights themselves; other formats must come with the checkpoint.
void set_weight_format(Flags& out, const serving::SearchRequest& request);

}  // namespace tessera::plan
