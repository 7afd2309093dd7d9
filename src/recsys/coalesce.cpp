#include <unordered_map>

#include "recsys/row_kernels.h"
#include "recsys/store.h"

namespace tessera::recsys {

Coalesced coalesce(std::span<const uint64_t> ids, std::span<const float> gradients, int64_t dim) {
  size_t width = static_cast<size_t>(dim);
  TESSERA_REQUIRE(gradients.size() == ids.size() * width, "{} floats for {} gradients of {}", gradients.size(),
                  ids.size(), dim);
  Coalesced result;
  std::unordered_map<uint64_t, size_t> position;
  position.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const float* gradient = &gradients[i * width];
    auto [found, is_new] = position.try_emplace(ids[i], result.ids.size());
    if (is_new) {
      result.ids.push_back(ids[i]);
      result.gradients.insert(result.gradients.end(), gradient, gradient + width);
    } else {
      row_kernels().add(gradient, dim, &result.gradients[found->second * width]);
    }
  }
  return result;
}

}  // namespace tessera::recsys
