// Arithmetic on boxes of row-major arrays: what a rank wrote and what another rank wants overlap in boxes, and
// bytes move between arrays in runs that are contiguous on both sides. Boxes have any number of dimensions.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "layout/extents.h"

namespace tessera::checkpoint {

Extent whole_box(const std::vector<int64_t>& shape);

// Whether `box` has the dimensions of `shape` and lies within it. An empty box at the border is within.
bool lies_within(const Extent& box, const std::vector<int64_t>& shape);

// The common part, or nothing when no element is common. REQUIRES: equal number of dimensions.
std::optional<Extent> intersection(const Extent& a, const Extent& b);

// `box` without `hole`, as disjoint boxes (at most two per dimension).
std::vector<Extent> difference(const Extent& box, const Extent& hole);

// Whether two boxes of the list overlap, and which (the first pair found).
std::optional<std::pair<size_t, size_t>> overlapping(const std::vector<Extent>& boxes);

// `box` cut along its first dimensions into boxes of at most `max_elements` (one row at least), in flat order.
std::vector<Extent> cut(const Extent& box, int64_t max_elements);

// Elements that lie one after the other both in `a` and in `b`.
struct Run {
  int64_t at_a = 0, at_b = 0, length = 0;
};
// The runs of `part` between two arrays that hold the boxes `a` and `b`. REQUIRES: part lies in both.
void for_each_run(const Extent& part, const Extent& a, const Extent& b,
                  const std::function<void(const Run&)>& visit);

// Copies `part` from an array that holds the box `from_box` to one that holds `to_box`; items of `item` bytes.
void copy_part(const std::byte* from, const Extent& from_box, std::byte* to, const Extent& to_box,
               const Extent& part, int64_t item);

// "rows 0..63", "rows 0..63, columns 8..15"; both ends included. "one value" for a scalar.
std::string describe(const Extent& box);
// "[64, 32]"
std::string describe_shape(const std::vector<int64_t>& shape);

}  // namespace tessera::checkpoint
