#include <algorithm>

#include "recsys_train/trainer.h"

namespace tessera::recsys_train {

// Reduce-scatter by all-to-all, sums in the order of ranks, then all-gather.
Status all_reduce_mean(Group& group, std::span<float> values) {
  const auto ranks = static_cast<size_t>(group.size()), me = static_cast<size_t>(group.rank());
  if (ranks == 1) return {};
  const size_t block = (values.size() + ranks - 1) / ranks;
  std::vector<float> padded(block * ranks, 0), parts(block * ranks);
  std::copy(values.begin(), values.end(), padded.begin());
  auto part = [block](std::vector<float>& all, size_t rank) {
    return std::span(all).subspan(rank * block, block);
  };
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  for (size_t r = 0; r < ranks; ++r) {
    out.push_back(std::as_bytes(part(padded, r)));
    in.push_back(std::as_writable_bytes(part(parts, r)));
  }
  TESSERA_RETURN_IF_ERROR(group.all_to_all(out, in));
  auto mine = part(padded, me);
  for (size_t i = 0; i < block; ++i) {
    float sum = parts[i];
    for (size_t r = 1; r < ranks; ++r) sum += parts[r * block + i];
    mine[i] = sum / static_cast<float>(ranks);
  }
  TESSERA_RETURN_IF_ERROR(group.all_gather(std::as_bytes(mine), std::as_writable_bytes(std::span(padded))));
  std::copy_n(padded.begin(), values.size(), values.begin());
  return {};
}

}  // namespace tessera::recsys_train
