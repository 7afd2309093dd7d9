#include "cli/torch/serve_options.h"

#include <algorithm>
#include <thread>

#include "kernels/kernels.h"

namespace tessera::cli {

void ServeFlags::add_to(CLI::App& command) {
  command
      .add_option("--model", model, "Hugging Face directory (config.json, safetensors, tokenizer) or GGUF file")
      ->required();
  command.add_option("--tokenizer", tokenizer, "Directory or tokenizer.json; empty: the model's own");
  command.add_option("--dtype", dtype, "Weights, activations and KV: float32 or bf16")->capture_default_str();
  command.add_option("--kv", kv, "KV alone, with --dtype bf16: bf16, int8 or fp8 (half of the memory)");
  command.add_flag(
      "--map-weights", map_weights,
      "Weights in few bits stay in the mapped file, shared with other servers, not copied to large pages");
  command.add_option("--max-batch-tokens", max_batch_tokens, "Tokens of one step")->capture_default_str();
  command.add_option("--kv-tokens", kv_tokens, "Tokens of the KV cache; 0: chosen by memory")
      ->capture_default_str();
  command.add_option("--threads", threads, "Threads of each process; 0: the cores, shared by the processes")
      ->capture_default_str();
}

Result<serve::ServeOptions> ServeFlags::options() const {
  serve::ServeOptions options{.model = model,
                              .tokenizer = tokenizer,
                              .dtype = dtype,
                              .map_weights = map_weights,
                              .kv = kv,
                              .max_batch_tokens = max_batch_tokens,
                              .max_running = std::min(max_running, max_batch_tokens),
                              .max_waiting = max_waiting,
                              .kv_tokens = kv_tokens,
                              .kv_host_tokens = kv_host_tokens,
                              .kv_disk_tokens = kv_disk_tokens,
                              .kv_disk_folder = kv_disk_folder};
  options.mtp = drafts_itself();
  TESSERA_ASSIGN_OR_RETURN(options.layout, parse_layout(layout));
  TESSERA_RETURN_IF_ERROR(check(options));
  if (options.kv_tokens == 0) {
    TESSERA_ASSIGN_OR_RETURN(options.kv_tokens, choose_kv_tokens(options));
  }
  return options;
}

Result<std::shared_ptr<serve::DraftModel>> ServeFlags::load_draft(const serve::ServeOptions& options,
                                                                  const serve::ServedSpec& served) const {
  if (draft.empty() || drafts_itself()) return std::shared_ptr<serve::DraftModel>();
  serve::ServeOptions own = options;
  own.model = draft;
  own.layout = Layout();
  TESSERA_ASSIGN_OR_RETURN(auto loaded, serve::load_model(own, 0, true));
  auto made =
      serve::DraftModel::make(std::move(loaded), served,
                              {.kv_tokens = options.kv_tokens, .max_batch_tokens = options.max_batch_tokens});
  if (!made) return made.error().within("--draft " + draft);
  return std::shared_ptr<serve::DraftModel>(std::move(*made));
}

void ServeFlags::apply_threads(int64_t ranks) const {
  int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  int64_t chosen = threads > 0 ? threads : std::max<int64_t>(1, cores / ranks);
  kernels::set_kernel_threads(chosen);
}

}  // namespace tessera::cli
