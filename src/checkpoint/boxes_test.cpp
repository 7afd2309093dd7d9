#include "checkpoint/boxes.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace tessera::checkpoint {
namespace {

// Brute force: a grid of flags, one per element of a small tensor.
struct Grid {
  std::vector<int64_t> shape;
  std::vector<int> count;
  explicit Grid(std::vector<int64_t> s) : shape(std::move(s)) {
    count.assign(static_cast<size_t>(whole_box(shape).elements()), 0);
  }
  void add(const Extent& box) {
    Extent all = whole_box(shape);
    for_each_element(all, [&](const std::vector<int64_t>& at, size_t flat) {
      for (size_t dim = 0; dim < at.size(); ++dim)
        if (at[dim] < box.offset[dim] || at[dim] >= box.offset[dim] + box.size[dim]) return;
      ++count[flat];
    });
  }
  template <class Visit>
  static void for_each_element(const Extent& box, Visit visit) {
    std::vector<int64_t> at(box.size.size());
    for (int64_t flat = 0; flat < box.elements(); ++flat) {
      int64_t rest = flat;
      for (size_t dim = at.size(); dim-- > 0;) at[dim] = rest % box.size[dim], rest /= box.size[dim];
      visit(at, static_cast<size_t>(flat));
    }
  }
};

Extent random_box(const std::vector<int64_t>& shape, std::mt19937& random) {
  Extent box = whole_box(shape);
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    box.offset[dim] = std::uniform_int_distribution<int64_t>(0, shape[dim] - 1)(random);
    box.size[dim] = std::uniform_int_distribution<int64_t>(1, shape[dim] - box.offset[dim])(random);
  }
  return box;
}

const std::vector<std::vector<int64_t>> kShapes = {{17}, {5, 7}, {4, 3, 5}, {2, 3, 2, 4}};

TEST(Boxes, DifferenceAndIntersectionTileTheBox) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const auto& shape = kShapes[static_cast<size_t>(round) % kShapes.size()];
    Extent box = random_box(shape, random), hole = random_box(shape, random);
    Grid expected(shape), got(shape), holes(shape);
    expected.add(box), holes.add(hole);
    for (const Extent& part : difference(box, hole)) got.add(part);
    auto common = intersection(box, hole);
    if (common) got.add(*common);
    EXPECT_EQ(got.count, expected.count);
    bool touch = false;
    for (size_t i = 0; i < holes.count.size(); ++i) touch |= holes.count[i] && expected.count[i];
    EXPECT_EQ(common.has_value(), touch);
  }
}

TEST(Boxes, OverlapIsFoundExactlyWhenAnElementLiesInTwo) {
  std::mt19937 random(2);
  int overlaps = 0;
  for (int round = 0; round < 300; ++round) {
    const auto& shape = kShapes[static_cast<size_t>(round) % kShapes.size()];
    std::vector<Extent> boxes;
    Grid grid(shape);
    for (int i = 0; i < 2 + round % 3; ++i) {
      boxes.push_back(random_box(shape, random));
      grid.add(boxes.back());
    }
    bool expected = *std::max_element(grid.count.begin(), grid.count.end()) > 1;
    overlaps += expected;
    EXPECT_EQ(overlapping(boxes).has_value(), expected);
  }
  EXPECT_GT(overlaps, 50);
  EXPECT_LT(overlaps, 250);
}

TEST(Boxes, CopyMovesEveryElementOfThePartToItsPlace) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const auto& shape = kShapes[static_cast<size_t>(round) % kShapes.size()];
    Extent from = random_box(shape, random), to = random_box(shape, random);
    auto part = intersection(from, to);
    if (!part) continue;
    // Every element's value is its place in the whole tensor.
    auto place = [&](const std::vector<int64_t>& at, const Extent& box) {
      int64_t flat = 0;
      for (size_t dim = 0; dim < at.size(); ++dim) flat = flat * shape[dim] + at[dim] + box.offset[dim];
      return static_cast<int32_t>(flat);
    };
    std::vector<int32_t> source(static_cast<size_t>(from.elements())),
        target(static_cast<size_t>(to.elements()), -1);
    Grid::for_each_element(from, [&](const auto& at, size_t flat) { source[flat] = place(at, from); });
    copy_part(reinterpret_cast<const std::byte*>(source.data()), from,
              reinterpret_cast<std::byte*>(target.data()), to, *part, 4);
    Grid inside(shape);
    inside.add(*part);
    Grid::for_each_element(to, [&](const auto& at, size_t flat) {
      int32_t whole = place(at, to);
      EXPECT_EQ(target[flat], inside.count[static_cast<size_t>(whole)] ? whole : -1);
    });
  }
}

TEST(Boxes, CutPartsTileInFlatOrderWithinTheLimit) {
  Extent box{{3, 2}, {10, 6}};
  auto parts = cut(box, 20);  // 3 rows of 6 each
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(parts[0], (Extent{{3, 2}, {3, 6}}));
  EXPECT_EQ(parts[3], (Extent{{12, 2}, {1, 6}}));
  EXPECT_EQ(cut(box, 1).size(), 10u);  // never less than a row
  EXPECT_EQ(cut(Extent{{0}, {0}}, 4).size(), 0u);
}

TEST(Boxes, BordersAreWithinAndBeyondIsNot) {
  EXPECT_TRUE(lies_within({{4, 0}, {0, 3}}, {4, 3}));
  EXPECT_TRUE(lies_within({{0, 0}, {4, 3}}, {4, 3}));
  EXPECT_FALSE(lies_within({{1, 0}, {4, 3}}, {4, 3}));
  EXPECT_FALSE(lies_within({{-1, 0}, {1, 3}}, {4, 3}));
  EXPECT_FALSE(lies_within({{0}, {4}}, {4, 3}));
  EXPECT_FALSE(lies_within({{INT64_MAX, 0}, {4, 3}}, {4, 3}));
  EXPECT_EQ(describe({{64, 8}, {64, 8}}), "rows 64..127, columns 8..15");
}

}  // namespace
}  // namespace tessera::checkpoint
