// Where a served model's weights come from: the part of one tensor-parallel rank, read and packed, or mapped.
#pragma once

#include <filesystem>
#include <memory>

#include "serve/model.h"

namespace tessera::serve {

// Errors: those of the files.
class Weights {
 public:
  virtual ~Weights() = default;
  virtual int64_t tp_blocks() const = 0;
  virtual void set_place(const ServePlace& place) = 0;  // tp divides tp_blocks()

  virtual Result<at::Tensor> floats(Role role, int64_t layer = -1) = 0;
  // Several weights side by side.
  virtual Result<Linear> linear(std::vector<Role> roles, int64_t layer = -1) = 0;
  virtual Result<BlockLinear> blocks(Role role, int64_t layer) = 0;
  virtual Result<FeedForward> feed_forward(int64_t layer) = 0;
  // The rows of a tied embedding in few bits; empty when they are floats.
  virtual Result<kernels::QuantWeight> quant_embedding() { return kernels::QuantWeight(); }
  // What each frequency of the rotary embedding is divided by; empty: nothing.
  virtual Result<std::vector<float>> rope_divisors() { return std::vector<float>(); }
};

// `directory` is checked against `spec`.
Result<std::unique_ptr<Weights>> open_float_weights(const std::filesystem::path& directory,
                                                    const ModelSpec& spec, const LoadOptions& options);
Result<std::unique_ptr<Weights>> open_packed_weights(const std::filesystem::path& directory,
                                                     const ModelSpec& spec, const LoadOptions& options);

struct FourBitFormat;
Result<std::unique_ptr<Weights>> open_four_bit_weights(const std::filesystem::path& directory,
                                                       const FourBitFormat& format, const ModelSpec& spec,
                                                       const LoadOptions& options);

}  // namespace tessera::serve
