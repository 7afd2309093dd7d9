#include "train/slice.h"

#include <algorithm>

namespace tessera::train {

std::vector<SlicePart> slice_parts(const model::Unit& unit) {
  std::vector<SlicePart> parts;
  int64_t begin = unit.slice_begin(), end = begin + unit.slice_elements();
  for (const model::UnitTensor& tensor : unit.tensors()) {
    int64_t first = std::max(begin, tensor.offset), last = std::min(end, tensor.offset + tensor.elements);
    if (first < last) parts.push_back({&tensor, first - tensor.offset, last - tensor.offset, first - begin});
  }
  return parts;
}

}  // namespace tessera::train
