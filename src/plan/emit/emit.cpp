#include "plan/emit/emit.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/nearest.h"
#include "plan/emit/targets.h"

namespace tessera::plan {
namespace {

template <class Function>
struct Target {
  const char* name;
  Function emit;
};

template <class Function, size_t n>
Result<const Target<Function>*> find(const std::string& name, const char* what,
                                     const Target<Function> (&targets)[n]) {
  std::vector<std::string> names;
  for (const auto& target : targets) {
    if (name == target.name) return &target;
    names.emplace_back(target.name);
  }
  return invalid("--emit {}: not a tool for {}{}; known: {}", name, what, did_you_mean(name, names),
                 fmt::join(names, ", "));
}

using TrainingEmitter = Result<std::string> (*)(const GpuPlanRequest&, const TrainingSetup&);
constexpr Target<TrainingEmitter> kTraining[] = {{"tessera", emit_tessera},
                                                 {"megatron", emit_megatron},
                                                 {"torchtitan", emit_torchtitan},
                                                 {"deepspeed", emit_deepspeed}};
using ServingEmitter = Result<std::string> (*)(const serving::SearchRequest&, const ServingRole&);
constexpr Target<ServingEmitter> kServing[] = {
    {"tessera", emit_tessera}, {"vllm", emit_vllm}, {"sglang", emit_sglang}, {"tensorrt-llm", emit_trtllm}};

ServingRole role(ServingRole::Phase phase, const serving::WorkerLayout& layout, int64_t workers,
                 double requests) {
  double ranks = static_cast<double>(workers * layout.dp);
  return {phase, layout, workers, std::max<int64_t>(1, std::llround(std::ceil(requests / ranks)))};
}

std::string heading(const ServingRole& role) {
  const char* does[] = {"prompts and answers", "prompts", "answers"};
  return fmt::format("# {} worker{} for {}, {} GPU{} each{}\n", role.workers, role.workers == 1 ? "" : "s",
                     does[role.phase], role.layout.gpus(), role.layout.gpus() == 1 ? "" : "s",
                     role.workers == 1 ? "" : ": start this so often, behind a router");
}

}  // namespace

bool as_published(const serving::SearchRequest& r) {
  return r.formats.attention == r.model.attention_format && r.formats.ffn == r.model.ffn_format &&
         r.formats.experts == r.model.expert_format;
}

void set_weight_format(Flags& out, const serving::SearchRequest& request) {
  if (as_published(request)) return;
  const serving::Formats& formats = request.formats;
  if (formats.experts == WeightFormat::fp8 || formats.ffn == WeightFormat::fp8)
    out.set("--quantization", "fp8");
  else
    out.note(fmt::format("planned weights in {}: MODEL must be a checkpoint in that format",
                         to_string(formats.ffn == WeightFormat::bf16 ? formats.experts : formats.ffn)));
}

Result<std::string> emit_training(const std::string& target, const GpuPlanRequest& request,
                                  const GpuPrediction& best) {
  TESSERA_ASSIGN_OR_RETURN(const auto* tool, find(target, "training", kTraining));
  if (!best.switches.empty())
    return invalid(
        "--emit {}: a candidate of --space calculon has switches of its own ({}), which no tool has; plan "
        "without --space",
        target, best.switches);
  return tool->emit(request, best.setup);
}

Result<std::string> emit_training(const std::string& target, const Request& request, const Prediction& best) {
  TESSERA_ASSIGN_OR_RETURN(const auto* tool, find(target, "training", kTraining));
  if (tool != &kTraining[0])
    return invalid("--emit {}: {} is a host, on which only tessera trains; use --emit tessera", target,
                   request.cluster.name);
  return emit_tessera(request, best);
}

Result<std::string> emit_serving(const std::string& target, const serving::SearchRequest& request,
                                 const serving::Candidate& best) {
  TESSERA_ASSIGN_OR_RETURN(const auto* tool, find(target, "serving", kServing));
  std::vector<ServingRole> roles;
  double requests = best.estimate.running;
  if (!best.disaggregated) {
    roles.push_back(role(ServingRole::both, best.layout, best.workers, requests));
  } else {
    roles.push_back({ServingRole::prompts, best.layout, best.workers, 1});
    roles.push_back(role(ServingRole::answers, best.decode_layout, best.decode_workers, requests));
  }
  std::string text;
  for (const ServingRole& one : roles) {
    TESSERA_ASSIGN_OR_RETURN(std::string part, tool->emit(request, one));
    text += (text.empty() ? "" : "\n") + heading(one) + part;
  }
  return text;
}

}  // namespace tessera::plan
