// Weights of 4 bits as GPTQ and AWQ write them into Hugging Face directories, as plain integers. Of a product
// [n, k]:
//   gptq  qweight int32 [k / 8, n]: eight successive k in a word, the first in the lowest bits
//         qzeros  int32 [groups, n / 8]: eight successive n in a word; files of version 1 hold one less
//         scales  float16 [groups, n];   g_idx int32 [k], the group of each k (desc_act: not ascending)
//   awq   qweight int32 [k, n / 8], qzeros int32 [groups, n / 8]: n 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits
//         scales  float16 [groups, n]
// and weight[n, k] = (q - zero) * scale. Source: AutoGPTQ's qlinear_cuda_old, AutoAWQ's linear/gemm.
// Threads: values.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>

#include "checkpoint/weight_reader.h"
#include "kernels/quant.h"

namespace tessera::serve {

struct FourBitFormat {
  enum class Method { gptq, awq };
  Method method = Method::gptq;
  int64_t group_size = 128;    // of k; -1: all of k
  bool by_activation = false;  // desc_act: groups are not runs of k
  bool zeros_less_one = true;  // what is stored of a zero
};

// From quantization_config of config.json, or quantize_config.json beside it. Empty: the weights are floats.
// Errors: another method, other bits, another packing; names the field.
Result<std::optional<FourBitFormat>> four_bit_format_of(const std::filesystem::path& directory);

// A product, groups being runs of k in the order given.
struct FourBitWeight {
  at::Tensor q;      // uint8 [n, k]
  at::Tensor zero;   // uint8 [n, groups], up to 16
  at::Tensor scale;  // float16 [n, groups]
  at::Tensor order;  // int64 [k]: column i of q is input order[i]; undefined: as they are
  int64_t n() const { return q.size(0); }
  int64_t k() const { return q.size(1); }
  at::Tensor dequantised() const;  // float32 [n, k], inputs in their own order
  // Without loss: int4 where all zeros are 8, else int4_zero. Rows [row, row + rows), inputs (as ordered)
  // [first, first + count), in `blocks` blocks. REQUIRES: blocks of whole groups of 32.
  kernels::QuantWeight packed(int64_t row, int64_t rows, int64_t first, int64_t count, int64_t blocks) const;
  FourBitWeight with_rows(const at::Tensor& rows) const;  // int64 indices
};

// `name` without ".weight". Errors: a tensor that is missing or of another shape or type, a bias that is not
// zero, groups that are no multiple of 32; by name.
Result<FourBitWeight> read_four_bit(const checkpoint::WeightReader& reader, const FourBitFormat& format,
                                    const std::string& name, int64_t n, int64_t k);
bool is_four_bit(const checkpoint::WeightReader& reader, const std::string& name);

}  // namespace tessera::serve
