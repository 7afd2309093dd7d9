#include "data/blended_dataset.h"

#include <algorithm>
#include <cmath>

#include "data/permutation.h"

namespace tessera::data {

Result<std::unique_ptr<BlendedDataset>> BlendedDataset::create(std::vector<Part> parts, uint64_t seed) {
  if (parts.empty()) return invalid("a blend of no sources");
  double sum = 0;
  for (const Part& part : parts) {
    if (!(part.weight > 0) || !std::isfinite(part.weight))
      return invalid("a source of the blend has weight {}, expected above 0", part.weight);
    if (part.source->seq() != parts.front().source->seq())
      return invalid("sources of a blend have samples of {} and {} tokens, expected equal ones",
                     parts.front().source->seq(), part.source->seq());
    sum += part.weight;
  }
  // Rounding the running sum, not each share, keeps the total at kBlock.
  std::vector<int64_t> ends;
  double running = 0;
  for (const Part& part : parts) {
    running += part.weight;
    ends.push_back(std::llround(running / sum * kBlock));
    int64_t begin = ends.size() > 1 ? ends[ends.size() - 2] : 0;
    if (ends.back() == begin)
      return invalid("a source of the blend has share {:.2g}, the least is {:.2g}", part.weight / sum,
                     1.0 / kBlock);
  }
  return std::unique_ptr<BlendedDataset>(new BlendedDataset(std::move(parts), std::move(ends), seed));
}

BlendedDataset::Choice BlendedDataset::choose(int64_t global_index) const {
  int64_t block = global_index / kBlock;
  int64_t place = Permutation(kBlock, mix(seed_, static_cast<uint64_t>(block)))(global_index % kBlock);
  auto part = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), place) - ends_.begin());
  int64_t begin = part > 0 ? ends_[part - 1] : 0;
  return {part, block * (ends_[part] - begin) + place - begin};
}

Sample BlendedDataset::sample(int64_t global_index) const {
  Choice choice = choose(global_index);
  return parts_[choice.part].source->sample(choice.index);
}

}  // namespace tessera::data
