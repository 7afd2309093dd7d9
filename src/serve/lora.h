// Low-rank adapters (LoRA, Hu and others 2021) beside the weights of a served model, in PEFT's form: a product
// y = W x becomes W x + scale * B (A x), for the requests that ask for it. Requests of several adapters, and of
// none, run in one step.
//
// Bits: a row meets its own adapter alone, so answers do not depend on neighbours. Threads: const after load.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "serve/served_spec.h"

namespace tessera::serve {

struct LowRank {
  kernels::PackedWeight a, b;  // [rank, k], [n, rank]; b holds the scale. Empty: the product has none
  bool empty() const { return a.n() == 0; }
};

struct LoraLayer {
  LowRank q, k, v, o, gate, up, down;
};

struct LoraAdapter {
  std::string name;
  std::vector<LoraLayer> layers;
};

// `directory` holds adapter_config.json and adapter_model.safetensors. Errors: another method, a target that is
// not served, a tensor that is missing or of another shape; names the field or the tensor.
Result<LoraAdapter> load_lora(const std::string& name, const std::filesystem::path& directory,
                              const ServedSpec& spec, at::ScalarType dtype);

// Rows of a step that ask for one adapter.
struct LoraRows {
  const LoraAdapter* adapter = nullptr;
  at::Tensor rows;  // int64
};

// out[rows] += B (A x[rows]), rounded to out's type; nothing where there is no part. out [T, n] may be columns
// of a wider tensor.
void add_low_rank(const LowRank& part, const at::Tensor& x, const at::Tensor& rows, at::Tensor out);

}  // namespace tessera::serve
