#include "checkpoint/boxes.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace tessera::checkpoint {
namespace {

// Elements from the start of an array that holds `box` to the element at `at`.
int64_t flat_index(const Extent& box, const std::vector<int64_t>& at) {
  int64_t index = 0;
  for (size_t dim = 0; dim < at.size(); ++dim) index = index * box.size[dim] + (at[dim] - box.offset[dim]);
  return index;
}

// Dimensions [result, D) of `part` are contiguous in both arrays.
size_t first_joined_dim(const Extent& part, const Extent& a, const Extent& b) {
  size_t dim = part.size.size() - 1;
  while (dim > 0 && part.size[dim] == a.size[dim] && part.size[dim] == b.size[dim]) --dim;
  return dim;
}

// Moves `at` to the next position over dimensions [0, dims) of the box; false at the end.
bool advance(std::vector<int64_t>& at, const Extent& box, size_t dims) {
  for (size_t dim = dims; dim-- > 0;) {
    if (++at[dim] < box.offset[dim] + box.size[dim]) return true;
    at[dim] = box.offset[dim];
  }
  return false;
}

}  // namespace

Extent whole_box(const std::vector<int64_t>& shape) {
  return {std::vector<int64_t>(shape.size(), 0), shape};
}

bool lies_within(const Extent& box, const std::vector<int64_t>& shape) {
  if (box.offset.size() != shape.size() || box.size.size() != shape.size()) return false;
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    bool inside = box.offset[dim] >= 0 && box.offset[dim] <= shape[dim] && box.size[dim] >= 0 &&
                  box.size[dim] <= shape[dim] - box.offset[dim];
    if (!inside) return false;
  }
  return true;
}

std::optional<Extent> intersection(const Extent& a, const Extent& b) {
  Extent common = a;
  for (size_t dim = 0; dim < a.size.size(); ++dim) {
    int64_t begin = std::max(a.offset[dim], b.offset[dim]);
    int64_t end = std::min(a.offset[dim] + a.size[dim], b.offset[dim] + b.size[dim]);
    if (begin >= end) return std::nullopt;
    common.offset[dim] = begin, common.size[dim] = end - begin;
  }
  return common;
}

std::vector<Extent> difference(const Extent& box, const Extent& hole) {
  auto common = intersection(box, hole);
  if (!common) return {box};
  std::vector<Extent> out;
  Extent rest = box;  // shrinks to the common part, one dimension after the other
  for (size_t dim = 0; dim < box.size.size(); ++dim) {
    Extent before = rest, after = rest;
    before.size[dim] = common->offset[dim] - rest.offset[dim];
    after.offset[dim] = common->offset[dim] + common->size[dim];
    after.size[dim] = rest.offset[dim] + rest.size[dim] - after.offset[dim];
    if (before.elements() > 0) out.push_back(before);
    if (after.elements() > 0) out.push_back(after);
    rest.offset[dim] = common->offset[dim], rest.size[dim] = common->size[dim];
  }
  return out;
}

std::optional<std::pair<size_t, size_t>> overlapping(const std::vector<Extent>& boxes) {
  std::vector<size_t> order(boxes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return boxes[a].offset < boxes[b].offset; });
  std::vector<size_t> open;  // boxes that reach the current row
  for (size_t next : order) {
    const Extent& box = boxes[next];
    if (box.size.empty()) return order.size() > 1 ? std::optional(std::pair(order[0], order[1])) : std::nullopt;
    std::erase_if(open,
                  [&](size_t other) { return boxes[other].offset[0] + boxes[other].size[0] <= box.offset[0]; });
    for (size_t other : open)
      if (intersection(boxes[other], box)) return std::pair(other, next);
    open.push_back(next);
  }
  return std::nullopt;
}

std::vector<Extent> cut(const Extent& box, int64_t max_elements) {
  if (box.elements() == 0) return {};
  if (box.size.empty() || box.elements() <= max_elements) return {box};
  std::vector<Extent> out;
  int64_t row = std::max<int64_t>(1, box.elements() / box.size[0]);
  int64_t rows = std::max<int64_t>(1, max_elements / row);
  for (int64_t begin = 0; begin < box.size[0]; begin += rows) {
    Extent part = box;
    part.offset[0] = box.offset[0] + begin;
    part.size[0] = std::min(rows, box.size[0] - begin);
    out.push_back(part);
  }
  return out;
}

void for_each_run(const Extent& part, const Extent& a, const Extent& b,
                  const std::function<void(const Run&)>& visit) {
  if (part.elements() == 0) return;
  if (part.size.empty()) return visit({0, 0, 1});
  size_t dim = first_joined_dim(part, a, b);
  int64_t length = 1;
  for (size_t joined = dim; joined < part.size.size(); ++joined) length *= part.size[joined];
  std::vector<int64_t> at = part.offset;
  do {
    visit({flat_index(a, at), flat_index(b, at), length});
  } while (advance(at, part, dim));
}

void copy_part(const std::byte* from, const Extent& from_box, std::byte* to, const Extent& to_box,
               const Extent& part, int64_t item) {
  for_each_run(part, from_box, to_box, [&](const Run& run) {
    std::memcpy(to + run.at_b * item, from + run.at_a * item, static_cast<size_t>(run.length * item));
  });
}

std::string describe(const Extent& box) {
  static const char* const names[] = {"rows", "columns"};
  if (box.size.empty()) return "one value";
  std::vector<std::string> parts;
  for (size_t dim = 0; dim < box.size.size(); ++dim) {
    std::string name = dim < 2 ? names[dim] : fmt::format("dimension {}", dim);
    parts.push_back(fmt::format("{} {}..{}", name, box.offset[dim], box.offset[dim] + box.size[dim] - 1));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string describe_shape(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace tessera::checkpoint
