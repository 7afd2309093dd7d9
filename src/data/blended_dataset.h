// Several sources mixed by weight. Indices come in blocks of 4096; in each block every source has its share, in
// a shuffled order. A pure function of the index: nothing is drawn along the way.
#pragma once

#include <memory>
#include <vector>

#include "core/result.h"
#include "data/sample.h"

namespace tessera::data {

class BlendedDataset : public SampleSource {
 public:
  static constexpr int64_t kBlock = 4096;
  struct Part {
    std::shared_ptr<const SampleSource> source;
    double weight = 1;  // relative to the others
  };
  struct Choice {
    size_t part;
    int64_t index;  // within that part
  };

  // Errors: no parts, different seq, a weight that is not above 0 or has less than one of 4096 samples.
  static Result<std::unique_ptr<BlendedDataset>> create(std::vector<Part> parts, uint64_t seed);

  int64_t seq() const override { return parts_.front().source->seq(); }
  Sample sample(int64_t global_index) const override;
  Choice choose(int64_t global_index) const;

 private:
  BlendedDataset(std::vector<Part> parts, std::vector<int64_t> ends, uint64_t seed)
      : parts_(std::move(parts)), ends_(std::move(ends)), seed_(seed) {}
  std::vector<Part> parts_;
  std::vector<int64_t> ends_;  // of each part's share of a block
  uint64_t seed_;
};

}  // namespace tessera::data
