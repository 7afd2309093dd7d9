// Are two layouts of equal work equal? In exact mode: bit by bit, or the first step, operation and tensor that
// differ. In fast mode: step by step from the reference's state (teacher-forced), against a bound from
// precision, length of sums and depth.
#pragma once

#include <optional>

#include "train/trainer.h"

namespace tessera::train {

struct Difference {
  int64_t step = 0;
  std::string operation, tensor;
};

// One step in fast mode.
struct FastComparison {
  int64_t step = 0;
  double loss = 0, loss_difference = 0;  // relative to the reference's loss
  double gradient_difference = 0;        // largest over tensors of |g - g_ref| / |g_ref| (Frobenius)
  std::string worst_tensor;
};

struct VerifyResult {
  bool equal = false;  // bitwise, or within the bound
  std::string hash, hash_against;
  std::optional<Difference> first_difference;
  std::vector<double> losses, losses_against;
  uint64_t bytes_sent = 0;  // by all ranks of `against`, all steps
  uint64_t bytes_sent_reference = 0;
  int64_t gradient_bytes_peak = 0;  // largest of any rank of `against`
  // fast mode only
  std::vector<FastComparison> steps;
  double bound = 0;  // of loss and gradient differences
};

// Relative error that two orders of summation may cause in the gradient of a model: see docs/numerics.md.
double fast_bound(const ModelSpec& model, const Work& work);

// `progress(done, total)` is called after each step of either run.
Result<VerifyResult> verify(const TrainerOptions& options, const Layout& layout, const Layout& against,
                            int64_t steps, const data::SampleSource& source,
                            const std::function<void(int64_t, int64_t)>& progress);

}  // namespace tessera::train
