// Makes the packed form of a model (packed.h): matrices in few bits in the order that the server's products
// read, norms, routers and an untied embedding as floats.
#pragma once

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <functional>

#include "core/result.h"
#include "kernels/quant.h"

namespace tessera::checkpoint {

struct PackOptions {
  // Of the blocks' matrices. The head is never cut below int8: it decides between near tokens, and is read
  // once.
  kernels::QuantKind kind = kernels::QuantKind::int8;
  at::ScalarType dtype = at::kBFloat16;  // of what stays floats
  int64_t tp_blocks = 1;                 // of the output and down projections: see packed.h
  std::function<void(int64_t done, int64_t total)> progress;  // bytes written of all; may be empty
};

Result<kernels::QuantKind> parse_quant_kind(const std::string& text);  // "int8", "int4", "int4-offset"

// Writes the directory `to` (which must not exist) with config.json and the tokenizer's files. `from` is a
// checkpoint or any Hugging Face directory of a model that we know. `to` appears whole or not at all.
Status pack_model(const std::filesystem::path& from, const std::filesystem::path& to,
                  const PackOptions& options);

}  // namespace tessera::checkpoint
