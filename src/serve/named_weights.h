// Weights of a Hugging Face directory by their names, with the shapes that the configuration asks for, and the
// parts of one rank. Models that are only served are put together from these.
//
// Errors: a tensor that is missing or of another shape, by name; those of the files. Threads: one at a time.
#pragma once

#include "checkpoint/weight_reader.h"
#include "serve/model.h"

namespace tessera::serve {

class NamedWeights {
 public:
  static Result<NamedWeights> open(const std::filesystem::path& directory, const ServedSpec& spec,
                                   const ServePlace& place, const LoadOptions& options);

  bool has(const std::string& name) const { return reader_.has(name); }
  at::ScalarType dtype() const { return options_.dtype; }
  const ServePlace& place() const { return place_; }
  // Whole, in the type of the activations or another; FP8 with factors of squares (DeepSeek-V3) as the numbers
  // that it means.
  Result<at::Tensor> read(const std::string& name, const std::vector<int64_t>& shape);
  Result<at::Tensor> read(const std::string& name, const std::vector<int64_t>& shape, at::ScalarType dtype);
  // With its bias where there is one. Older files call them gamma and beta.
  Result<Norm> norm(const std::string& name, int64_t width);
  // [1, ...] of one index of the first dimension.
  Result<at::Tensor> read_part(const std::string& name, const std::vector<int64_t>& shape, int64_t index,
                               at::ScalarType dtype);

  // Rows of this rank, of each of the tensors, one under the other.
  at::Tensor own_rows(std::initializer_list<at::Tensor> tensors) const;
  // A weight [n, k] cut along k; the bias [n] is added by the rank that has the first block.
  BlockLinear blocks(const at::Tensor& weight, const at::Tensor& bias = {}) const;
  // Rows of the vocabulary that are this rank's.
  at::Tensor own_vocab(const at::Tensor& weight) const;

 private:
  NamedWeights(checkpoint::WeightReader reader, const ServedSpec& spec, const ServePlace& place,
               const LoadOptions& options);
  Status check_shape(const std::string& name, const std::vector<int64_t>& shape) const;
  Result<at::Tensor> dequantised(const std::string& name, const std::vector<int64_t>& shape,
                                 at::ScalarType dtype);
  void count(const std::string& name);

  checkpoint::WeightReader reader_;
  ServePlace place_;
  LoadOptions options_;
  int64_t tp_blocks_;
  int64_t num_read_ = 0, num_tensors_ = 0;
  std::string last_read_;
};

}  // namespace tessera::serve
