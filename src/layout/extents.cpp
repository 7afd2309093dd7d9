#include "layout/extents.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace tessera {

int64_t Extent::elements() const {
  return std::accumulate(size.begin(), size.end(), int64_t{1}, std::multiplies<>());
}

bool holds(const ModelSpec& model, const TensorSpec& tensor, const Layout& layout, const Coordinate& c) {
  bool first = c.pp == 0, last = c.pp == layout.pp - 1;
  if (tensor.role == Role::embedding) return first || (last && model.tied);
  if (tensor.role == Role::head || tensor.role == Role::final_norm) return last;
  LayerRange layers = stage_layers(model, layout, c.pp);
  if (tensor.layer < layers.first || tensor.layer >= layers.last) return false;
  if (tensor.expert < 0) return true;
  return tensor.expert / (model.moe.experts / layout.ep) == expert_place(layout, c);
}

Extent tp_extent(const TensorSpec& tensor, int64_t tp, int64_t tp_place, int64_t tp_blocks) {
  Extent box{std::vector<int64_t>(tensor.shape.size(), 0), tensor.shape};
  if (tensor.split == Split::none || tp == 1) return box;
  size_t dim = tensor.split == Split::dim1 ? 1 : 0;
  int64_t whole = tensor.shape[dim];
  if (tensor.split == Split::vocab) whole = padded_vocab(whole, tp_blocks);
  TESSERA_REQUIRE(whole % tp == 0, "{}: dimension {} of {} is not divided by tp={}", tensor.name, dim, whole,
                  tp);
  int64_t each = whole / tp;
  box.offset[dim] = std::min(tp_place * each, tensor.shape[dim]);
  box.size[dim] = std::min(each, tensor.shape[dim] - box.offset[dim]);
  return box;
}

std::vector<Extent> extents_of_range(const Extent& box, int64_t begin, int64_t end) {
  std::vector<Extent> out;
  if (begin >= end) return out;
  if (box.size.size() == 1) return {Extent{{box.offset[0] + begin}, {end - begin}}};
  TESSERA_REQUIRE(box.size.size() == 2, "a range of a tensor with {} dimensions", box.size.size());
  int64_t width = box.size[1];
  auto add = [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
    if (rows > 0 && columns > 0)
      out.push_back({{box.offset[0] + row, box.offset[1] + column}, {rows, columns}});
  };
  int64_t row = begin / width, last_row = end / width;
  if (row == last_row) {
    add(row, 1, begin % width, end - begin);
    return out;
  }
  if (begin % width != 0) {
    add(row, 1, begin % width, width - begin % width);
    ++row;
  }
  add(row, last_row - row, 0, width);
  add(last_row, 1, 0, end % width);
  return out;
}

}  // namespace tessera
