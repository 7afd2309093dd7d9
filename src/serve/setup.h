// From a model directory to a model that can run: what `tessera serve` and `tessera generate` share.
#pragma once

#include <memory>
#include <string>

#include "batching/scheduler.h"
#include "layout/layout.h"
#include "serve/model.h"

namespace tessera::serve {

struct ServeOptions {
  std::filesystem::path model;                     // a Hugging Face or packed directory, or a GGUF file
  std::filesystem::path tokenizer;                 // of its own; empty: the model's
  Layout layout;                                   // tp, pp, dp and ep (place.h)
  std::string dtype = "float32";                   // or "bf16": of weights, activations and KV
  bool map_weights = false;                        // LoadOptions says what it is
  bool mtp = false;                                // the same
  std::string kv;                                  // of KV alone: "bf16", "int8" or "fp8"; empty: dtype
  int64_t max_batch_tokens = 512;                  // tokens of one step
  int64_t max_running = 64;                        // requests that run at once
  int64_t max_waiting = 256;                       // requests that wait
  int64_t kv_tokens = 0;                           // of the cache, over all requests; 0: chosen
  int64_t block_tokens = 16;                       // a multiple of 16
  int64_t kv_host_tokens = 0, kv_disk_tokens = 0;  // of further tiers, for prompts that come again
  std::filesystem::path kv_disk_folder;            // empty: the system's for temporary files
};

Result<at::ScalarType> parse_dtype(const std::string& text);

// Errors: sizes below one.
Status check(const ServeOptions& options);

// Tokens of KV cache when the user names none: all running requests at full length, but at most a quarter of
// this machine's free memory, shared by the ranks.
Result<int64_t> choose_kv_tokens(const ServeOptions& options);

// Of one replica: sizes of the options are those of the whole server. REQUIRES: options.kv_tokens is set.
batching::SchedulerOptions scheduling_of(const ServeOptions& options);

// The part of one rank of options.layout. Loads with a progress line on standard error when `show_progress`.
Result<ServedModel> load_model(const ServeOptions& options, int64_t rank, bool show_progress);

}  // namespace tessera::serve
