// Options that `serve` and `generate` share, and the processes of a tensor-parallel server.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "serve/draft_model.h"
#include "serve/gguf_model.h"
#include "serve/setup.h"

namespace tessera::cli {

struct ServeFlags {
  std::string model, tokenizer, layout = "dp=1", dtype = "float32", kv, draft;
  bool map_weights = false;
  int64_t max_batch_tokens = 512, max_running = 64, max_waiting = 256, kv_tokens = 0, threads = 0;
  int64_t kv_host_tokens = 0, kv_disk_tokens = 0;
  std::string kv_disk_folder;

  void add_to(CLI::App& command);
  // The served model's multi-token-prediction layer drafts.
  bool drafts_itself() const { return draft == "mtp"; }
  // Checked, with the number of KV tokens chosen.
  Result<serve::ServeOptions> options() const;
  // Threads of the kernels, for one of `ranks` processes on this machine.
  void apply_threads(int64_t ranks) const;
  // The option of add_to() is there for who guesses; null when none is named.
  Result<std::shared_ptr<serve::DraftModel>> load_draft(const serve::ServeOptions& options,
                                                        const serve::ServedSpec& served) const;
};

}  // namespace tessera::cli
