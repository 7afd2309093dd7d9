// A plan as what the tool that will run it reads: its configuration file or its flags, to paste. Only options
// that the tool has are written; what it cannot say stands in a comment (a note of the JSON for DeepSpeed,
// whose file has no comments), never silently dropped.
//
// Options are those of tessera, Megatron-LM core 0.16.1, torchtitan 0.3.0, DeepSpeed 0.19.8, vLLM 0.33.0,
// SGLang 0.5.23, TensorRT-LLM 1.4. Errors: an unknown target, with the nearest; a plan that the tool would
// refuse, with what to change. Threads: reentrant.
#pragma once

#include <string>

#include "plan/search.h"
#include "plan/serving/search.h"
#include "plan/training/gpu_search.h"

namespace tessera::plan {

// target: tessera, megatron, torchtitan or deepspeed.
Result<std::string> emit_training(const std::string& target, const GpuPlanRequest& request,
                                  const GpuPrediction& best);
// Of a plan for hosts: tessera.
Result<std::string> emit_training(const std::string& target, const Request& request, const Prediction& best);
// target: tessera, vllm, sglang or tensorrt-llm. One command or file for each role.
Result<std::string> emit_serving(const std::string& target, const serving::SearchRequest& request,
                                 const serving::Candidate& best);

}  // namespace tessera::plan
