// A rank owns one slice of each unit's flat parameters; here the slice is seen as parts of whole tensors.
#pragma once

#include "model/unit.h"

namespace tessera::train {

// The part of one tensor that lies in this rank's slice.
struct SlicePart {
  const model::UnitTensor* tensor;
  int64_t begin_in_tensor, end_in_tensor;  // flat, within the local box
  int64_t begin_in_slice;
  int64_t elements() const { return end_in_tensor - begin_in_tensor; }
  at::Tensor of(const at::Tensor& slice) const { return slice.narrow(0, begin_in_slice, elements()); }
};
std::vector<SlicePart> slice_parts(const model::Unit& unit);

// Calls visit(index in the whole tensor, index in the part, count) for every run of consecutive elements.
template <class Visit>
void for_each_run(const SlicePart& part, Visit visit) {
  int64_t done = 0;
  const auto& shape = part.tensor->spec.shape;
  for (const Extent& box : extents_of_range(part.tensor->box, part.begin_in_tensor, part.end_in_tensor)) {
    int64_t rows = box.size.size() == 2 ? box.size[0] : 1, width = box.size.back();
    for (int64_t row = 0; row < rows; ++row) {
      int64_t at = box.size.size() == 2 ? (box.offset[0] + row) * shape[1] + box.offset[1] : box.offset[0];
      visit(at, done, width);
      done += width;
    }
  }
}

}  // namespace tessera::train
