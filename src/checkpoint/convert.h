// Whole checkpoints made into others, by one process and with memory for one extent: the Hugging Face part
// alone in another precision, or everything in files of another size. A checkpoint knows no layout, so a change
// of layout needs neither.
#pragma once

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <functional>

#include "core/result.h"

namespace tessera::checkpoint {

struct ConvertOptions {
  at::ScalarType dtype = at::kBFloat16;  // of an export's weights: kFloat or kBFloat16
  int64_t max_file_bytes = int64_t{5} << 30;
  std::function<void(int64_t done, int64_t total)> progress;  // bytes read of all; may be empty
};

// Writes the directory `to` (which must not exist) with the weights, config.json and the tokenizer's files of
// `from`, which is a checkpoint or any Hugging Face directory. From a checkpoint the float32 masters are taken
// and their hashes checked, so an export to float32 loses nothing. Errors: as reading and writing; `to` appears
// whole or not at all.
Status export_model(const std::filesystem::path& from, const std::filesystem::path& to,
                    const ConvertOptions& options);

// Writes the checkpoint `from` again as `to` (which must not exist), every hash checked on the way.
Status reshard(const std::filesystem::path& from, const std::filesystem::path& to,
               const ConvertOptions& options);

}  // namespace tessera::checkpoint
