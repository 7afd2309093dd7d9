// How long the engine takes for steps of known loads, timed on the engine itself: answers of several sequences
// at a given context, prompts of given lengths that are computed alone, and prompts that arrive among answers.
//
// Units: seconds, tokens. Threads: one at a time, nobody else may use the engine meanwhile.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "serve/engine.h"

namespace tessera::serve {

struct DecodePoint {
  int64_t sequences = 1, prompt = 32;
  double context = 0;  // mean cached tokens while it was timed
  double seconds = 0;  // of one step
};
struct PromptPoint {
  int64_t tokens = 0;
  double seconds = 0;  // until its first token
};
struct MixedPoint {
  int64_t sequences = 1;  // that decode meanwhile
  int64_t tokens = 64;    // of the prompt, all in one step
  double context = 0;     // mean cached tokens of those that decode
  double seconds = 0;     // of that step
};
struct StepTimes {
  std::vector<DecodePoint> decode;
  std::vector<PromptPoint> prompts;
  std::vector<MixedPoint> mixed;
};

struct StepTimesOptions {
  int64_t vocab = 0;
  // Of the engine: points beyond are left out.
  int64_t max_running = 64, max_batch_tokens = 512, kv_tokens = 0, max_length = 0;
  int64_t decode_steps = 12;  // timed at each point; the median counts
  std::function<void(const std::string& what, double done)> progress;
};

// A tokenizer whose every token is a letter: text costs as little as it can.
data::TokenizerPtr letters(int64_t vocab);

// Errors: those of Engine::submit(), and of a request that fails.
Result<StepTimes> time_steps(Engine& engine, const StepTimesOptions& options);

}  // namespace tessera::serve
