// Products of many experts at once: a layer of a mixture is as many small products as it has experts, and one
// after the other each of them wakes and joins the threads for little work.
#pragma once

#include "kernels/kernels.h"

namespace tessera::kernels {

// Rows sorted by expert: rows [first[e], first[e + 1]) of `rows` meet weights[e], all of one shape; the bits of
// gemm_packed for each. All experts run at once: threads take (expert, columns).
void gemm_experts(const Tensor& rows, std::span<const int64_t> first,
                  std::span<const PackedWeight* const> weights, Tensor& out);

}  // namespace tessera::kernels
