#include "serve/setup.h"

#include <unistd.h>

#include <algorithm>

#include "core/progress.h"

namespace tessera::serve {

namespace {

int64_t free_memory_bytes() {
  return sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

}  // namespace

Result<at::ScalarType> parse_dtype(const std::string& text) {
  if (text == "float32") return at::kFloat;
  if (text == "bf16") return at::kBFloat16;
  return invalid("unknown dtype '{}'; use float32 or bf16", text);
}

Result<LoadOptions> load_options_of(const ServeOptions& options) {
  LoadOptions load{.map_weights = options.map_weights, .mtp = options.mtp};
  TESSERA_ASSIGN_OR_RETURN(load.dtype, parse_dtype(options.dtype));
  if (options.kv.empty()) return load;
  load.kv = kernels::kv_type_named(options.kv);
  if (!load.kv) return invalid("unknown type of keys and values '{}'; use bf16, int8 or fp8", options.kv);
  TESSERA_RETURN_IF_ERROR(kv_type_of(load));
  return load;
}

Status check(const ServeOptions& options) {
  if (options.max_running < 1 || options.max_running > options.max_batch_tokens)
    return invalid("{} requests at once need as many tokens in a step, but --max-batch-tokens is {}",
                   options.max_running, options.max_batch_tokens);
  TESSERA_RETURN_IF_ERROR(load_options_of(options));
  if (options.max_waiting < 1 || options.block_tokens < 1 || options.block_tokens % 16 != 0 ||
      std::min({options.kv_tokens, options.kv_host_tokens, options.kv_disk_tokens}) < 0)
    return invalid(
        "--max-waiting and the tokens of the KV cache must be positive, the block size a multiple of 16");
  return {};
}

Result<int64_t> choose_kv_tokens(const ServeOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(ServedSpec spec, load_served_spec(options.model));
  TESSERA_ASSIGN_OR_RETURN(auto load, load_options_of(options));
  TESSERA_ASSIGN_OR_RETURN(auto type, kv_type_of(load));
  const kernels::KvShape shape = spec.kv_shape(type, options.block_tokens, 1);
  int64_t bytes_per_token = (spec.layers + (options.mtp ? 1 : 0)) * shape.block_bytes() / shape.block_tokens;
  int64_t affordable = std::max<int64_t>(free_memory_bytes() / 4 / bytes_per_token, options.block_tokens);
  return std::min(options.max_running * spec.max_positions, affordable);
}

batching::SchedulerOptions scheduling_of(const ServeOptions& options) {
  const int64_t replicas = options.layout.replicas();
  auto share = [replicas](int64_t all) { return std::max<int64_t>(1, all / replicas); };
  return {.blocks = share(options.kv_tokens / options.block_tokens),
          .block_tokens = options.block_tokens,
          .max_batch_tokens = share(options.max_batch_tokens),
          .max_running = share(options.max_running),
          .max_waiting = options.max_waiting,
          .host_blocks = options.kv_host_tokens / options.block_tokens / replicas,
          .disk_blocks = options.kv_disk_tokens / options.block_tokens / replicas};
}

Result<ServedModel> load_model(const ServeOptions& options, int64_t rank, bool show_progress) {
  TESSERA_ASSIGN_OR_RETURN(LoadOptions load, load_options_of(options));
  std::unique_ptr<Progress> progress;
  load.progress = [&](int64_t done, int64_t total) {
    if (!show_progress) return;
    if (!progress)
      progress =
          std::make_unique<Progress>(Progress::Options{.label = "load", .unit = "tensors", .total = total});
    progress->update(done);
  };
  auto model = ServedModel::load(options.model, options.layout, rank, load);
  if (progress && model) progress->finish();
  return model;
}

}  // namespace tessera::serve
