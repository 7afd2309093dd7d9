#include "recsys_train/lookup.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "recsys_data/random.h"

namespace tessera::recsys_train {
namespace {

constexpr int64_t kRows = 50, kDim = 4;

// Slot 0 has one id in a row, the others 0 to 5, some of them twice.
recsys_data::Batch random_batch(recsys_data::Random& random) {
  recsys_data::Batch batch{.rows = kRows};
  batch.slots.resize(3);
  for (size_t s = 0; s < 3; ++s) {
    if (s > 0) batch.slots[s].offsets.push_back(0);
    for (int64_t i = 0; i < kRows; ++i) {
      uint64_t count = s == 0 ? 1 : random.below(6);
      for (uint64_t k = 0; k < count; ++k) batch.slots[s].ids.push_back(random.below(9));
      if (s > 0) batch.slots[s].offsets.push_back(static_cast<int64_t>(batch.slots[s].ids.size()));
    }
  }
  return batch;
}

LookupPlan plan_of(Pooling pooling) {
  return {.slots = {{0, pooling}, {1, pooling}, {0, pooling}}, .num_groups = 2, .dim = kDim, .wide = true};
}

void fill(std::vector<float>& values, size_t size, recsys_data::Random& random) {
  values.resize(size);
  for (float& value : values) value = static_cast<float>(random.normal());
}

TEST(Deduplicator, NamesEachIdOfASlotOnceAndSlotsApart) {
  recsys_data::Random random(1);
  Deduplicator deduplicator(plan_of(Pooling::sum));
  Lookup lookup;
  for (int round = 0; round < 20; ++round) {
    recsys_data::Batch batch = random_batch(random);
    deduplicator.run(batch, lookup);
    std::set<uint64_t> expected[2];
    for (size_t s = 0; s < 3; ++s) {
      size_t group = s == 1 ? 1 : 0;
      for (size_t i = 0; i < batch.slots[s].ids.size(); ++i) {
        expected[group].insert(key_of(s, batch.slots[s].ids[i]));
        auto place = static_cast<size_t>(lookup.positions[s][i]);
        ASSERT_EQ(lookup.groups[group].keys[place], key_of(s, batch.slots[s].ids[i]));
      }
    }
    for (size_t g = 0; g < 2; ++g) {
      std::set<uint64_t> got(lookup.groups[g].keys.begin(), lookup.groups[g].keys.end());
      EXPECT_EQ(got, expected[g]);
      EXPECT_EQ(got.size(), lookup.groups[g].keys.size());
    }
  }
}

TEST(Pooling, EqualsItsDefinitionForSumMeanAndSqrtN) {
  recsys_data::Random random(2);
  for (Pooling pooling : {Pooling::sum, Pooling::mean, Pooling::sqrt_n}) {
    LookupPlan plan = plan_of(pooling);
    recsys_data::Batch batch = random_batch(random);
    Lookup lookup;
    Deduplicator(plan).run(batch, lookup);
    std::map<uint64_t, std::vector<float>> row_of;
    for (GroupRows& group : lookup.groups) {
      fill(group.rows, group.keys.size() * kDim, random);
      fill(group.wide, group.keys.size(), random);
      for (size_t i = 0; i < group.keys.size(); ++i)
        row_of[group.keys[i]] = {group.rows.begin() + static_cast<long>(i) * kDim,
                                 group.rows.begin() + static_cast<long>(i + 1) * kDim};
    }
    std::vector<float> pooled(kRows * 3 * kDim, NAN), wide(kRows * 3, NAN);
    pool(plan, lookup, {pooled, wide, {}});
    for (size_t i = 0; i < kRows; ++i)
      for (size_t s = 0; s < 3; ++s)
        for (size_t d = 0; d < kDim; ++d) {
          auto ids = batch.slots[s].row(static_cast<int64_t>(i));
          double sum = 0, n = static_cast<double>(std::max<size_t>(1, ids.size()));
          for (uint64_t id : ids) sum += row_of[key_of(s, id)][d];
          if (pooling == Pooling::mean) sum /= n;
          if (pooling == Pooling::sqrt_n) sum /= std::sqrt(n);
          ASSERT_NEAR(pooled[(i * 3 + s) * kDim + d], sum, 1e-5);
        }
  }
}

// Pooling is linear, and unpool() is its transpose: <pool(rows), y> = <rows, unpool(y)> for all rows and y.
TEST(Pooling, GradientsAreTheTransposeOfPooling) {
  recsys_data::Random random(3);
  for (Pooling pooling : {Pooling::sum, Pooling::mean, Pooling::sqrt_n}) {
    LookupPlan plan = plan_of(pooling);
    Lookup lookup;
    Deduplicator(plan).run(random_batch(random), lookup);
    for (GroupRows& group : lookup.groups) {
      fill(group.rows, group.keys.size() * kDim, random);
      fill(group.wide, group.keys.size(), random);
    }
    std::vector<float> pooled(kRows * 3 * kDim), wide(kRows * 3), y, y_wide;
    fill(y, pooled.size(), random);
    fill(y_wide, wide.size(), random);
    pool(plan, lookup, {pooled, wide, {}});
    unpool(plan, kAllGroups, y, y_wide, lookup);
    double left = 0, right = 0, left_wide = 0, right_wide = 0;
    for (size_t i = 0; i < y.size(); ++i) left += double(pooled[i]) * y[i];
    for (size_t i = 0; i < y_wide.size(); ++i) left_wide += double(wide[i]) * y_wide[i];
    for (const GroupRows& group : lookup.groups) {
      for (size_t i = 0; i < group.rows.size(); ++i) right += double(group.rows[i]) * group.gradients[i];
      for (size_t i = 0; i < group.wide.size(); ++i)
        right_wide += double(group.wide[i]) * group.wide_gradients[i];
    }
    EXPECT_NEAR(left, right, 1e-3);
    EXPECT_NEAR(left_wide, right_wide, 1e-3);
    EXPECT_GT(std::abs(left), 0.1);
  }
}

}  // namespace
}  // namespace tessera::recsys_train
