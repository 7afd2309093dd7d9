// Memory that is read again and again in large amounts (weights, a cache of keys): in pages of 2 MiB where the
// kernel has them, because the processor otherwise looks up an address every 4 KiB.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tessera::kernels {

// A uint8 tensor of zeros, aligned to 2 MiB; its memory is taken now, by kernel_threads() threads. Throws
// c10::Error when there is none.
at::Tensor large_bytes(int64_t bytes);

}  // namespace tessera::kernels
