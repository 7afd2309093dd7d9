// What an inference engine adds to the roofline, as few constants per engine and version, read from
// data/serving/engines.toml (fitted by bench/fit_serving on the calibration part of the published rows).
//
// Times are seconds. Threads: values.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::plan::serving {

// How an engine shares its steps between prompts and answers.
enum class PrefillPolicy {
  chunked,  // prompt chunks ride in the decode steps, up to the token budget
  first,    // waiting prompts run alone, decoding waits
};

struct Engine {
  std::string name;     // "vllm", "sglang", "trtllm"
  std::string version;  // as given; constants are those of the nearest entry

  // Kernels, shares of what the accelerator reaches with large shapes.
  double compute = 0.9;         // products
  double memory = 1.0;          // reading weights
  double expert_compute = 0.5;  // products of experts that meet few rows each,
  double expert_rows = 512;     // half way to `compute` at so many
  double expert_memory = 0.7;   // on top of `memory`
  double attention = 0.8;       // prefill attention
  double cache_memory = 0.7;    // reading keys and values
  double activations = 12;      // times that the hidden row of a token is read or written in a layer
  // Time that is there for any batch.
  double layer_s = 4e-6;          // of one layer: kernels' starts and drains
  double expert_layer_s = 1e-5;   // more for a layer with experts
  double step_s = 1e-3;           // of one step: scheduling, sampling, detokenising
  double sequence_s = 5e-6;       // and per sequence of the step
  double prompt_s = 0.02;         // before the first token: HTTP, tokenising, queueing of the client
  double admission_steps = 1;     // steps that a prompt waits for before it is scheduled
  double dp_admission_steps = 1;  // the same with attention-DP
  double dp_balance_steps = 0;    // with attention-DP a prompt waits so long at most for prompts of other ranks
  double clump = 2;               // prompts that stay together when all requests have equal lengths
  double poll_steps = 0;          // between two looks for new requests (SGLang's scheduler-recv-interval)
  double batch_wait_steps = 0;    // a prompt waits so long at most for others to share its step,
  double batch_wait_share = 1;    // or until they fill this share of the budget (TensorRT-LLM's batch_wait_*)
  // Collectives.
  double reduce_s = 8e-6;    // latency of an all-reduce inside a domain
  double exchange_s = 2e-5;  // latency of an all-to-all inside a domain
  double link = 0.7;         // of the link's rate
  double network = 0.5;      // of the network's
  double expert_skew = 0.3;  // exponent of the power law of expert loads
  double lockstep = 0.5;     // attention-DP ranks whose prompts delay the others: 0 together, 1 each apart

  // Policy and memory.
  PrefillPolicy prefill = PrefillPolicy::chunked;
  double budget_tokens = 8192;   // of one step
  double max_running = 1024;     // sequences of one rank
  bool reserves_output = false;  // a request is admitted when its whole answer fits
  double memory_share = 0.9;     // of the memory (`share_of_free`: of what weights leave) for weights and cache
  bool share_of_free = false;
  double workspace_bytes = 4e9;  // activations, graphs, buffers of collectives
  double kv_bytes = 1;           // of a cached element of a model in 8 or 4 bits; 16-bit models: 2
  double draft_tokens = 0;       // of multi-token prediction, where the model has it: this version's recipes
  double draft_acceptance = 0.75;

  // Constants that the engine's documentation states: the fit leaves them as they are.
  std::vector<std::string> fixed;
  // Correction of the compute efficiency: "hopper.fp8", "blackwell.fp4" -> factor; of memory: "hopper.memory".
  // A variant ("blackwell-ultra.fp8") without its own figure takes that of its family.
  std::map<std::string, double> rates;
  double rate(const std::string& key) const;
};

// The named constants, for the fit and for printing: name -> field.
struct EngineField {
  const char* name;
  double Engine::*member;
  double low, high;         // bounds of the fit
  bool of_version = false;  // fitted for entries of single versions too; the others are the engine's
};
const std::vector<EngineField>& engine_fields();

// One table of constants; what it leaves out keeps its default. `where` begins messages.
Result<Engine> read_engine(const nlohmann::json& table, const std::string& where);

// `name`: vllm, sglang, trtllm (also TensorRT-LLM, "vLLM 0.11", ...); `version` chooses the entry with the
// longest common prefix, "" the newest. Errors: an unknown engine.
class EngineCatalogue {
 public:
  EngineCatalogue() = default;
  static Result<EngineCatalogue> parse(const std::string& toml, const std::string& name);
  static const EngineCatalogue& built_in();
  Result<Engine> find(const std::string& name, const std::string& version) const;
  std::vector<std::string> names() const;
  const std::vector<Engine>& entries() const { return entries_; }
  std::vector<Engine>& entries() { return entries_; }
  std::string to_toml() const;

 private:
  std::vector<Engine> entries_;  // `version` is the prefix that the entry stands for
};

}  // namespace tessera::plan::serving
