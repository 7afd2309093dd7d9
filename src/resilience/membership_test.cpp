#include "resilience/membership.h"

#include <gtest/gtest.h>

namespace tessera::resilience {
namespace {

const std::map<int64_t, std::string> kLayouts = {{1, "dp=1"}, {2, "fsdp=2"}, {4, "fsdp=2,ep=2,pp=2"}};

Report report_of(int64_t worker, std::vector<HeldPart> held = {}) {
  return {.worker = worker, .steps_done = 7, .held = std::move(held), .ranks = 4, .layouts = kLayouts};
}

// Own part and the left neighbour's, as a rank of four holds them.
Report survivor(int64_t worker, int64_t rank, SnapshotId snapshot) {
  return report_of(worker, {{snapshot, 4, rank, true}, {snapshot, 4, (rank + 3) % 4, false}});
}

TEST(Membership, AnyOneLossLeavesTheSnapshotComplete) {
  SnapshotId snapshot{.step = 5, .generation = 1};
  for (int64_t lost = 0; lost < 4; ++lost) {
    std::vector<Report> reports;
    for (int64_t rank = 0; rank < 4; ++rank)
      if (rank != lost) reports.push_back(survivor(rank, rank, snapshot));
    EXPECT_EQ(newest_complete(reports), snapshot);
  }
}

TEST(Membership, LossOfBothHoldersFallsBackToDisk) {
  SnapshotId snapshot{.step = 5, .generation = 1};
  std::vector<Report> reports = {survivor(0, 0, snapshot), survivor(3, 3, snapshot)};  // 1 was held by 1 and 2
  EXPECT_EQ(newest_complete(reports), std::nullopt);
  EXPECT_EQ(form(2, reports, nullptr)->source, StateSource::disk);
}

TEST(Membership, TornNewerSnapshotYieldsTheOlderCompleteOne) {
  SnapshotId older{.step = 5, .generation = 1}, newer{.step = 10, .generation = 1};
  std::vector<Report> reports;
  for (int64_t rank = 0; rank < 4; ++rank) reports.push_back(survivor(rank, rank, older));
  reports[0].held.push_back({newer, 4, 0, true});
  EXPECT_EQ(newest_complete(reports), older);
}

TEST(Membership, EqualStepPrefersTheLaterGeneration) {
  SnapshotId old_one{.step = 5, .generation = 1}, new_one{.step = 5, .generation = 2};
  EXPECT_EQ(newest_complete({report_of(1, {{old_one, 1, 0, true}, {new_one, 1, 0, true}})}), new_one);
}

TEST(Membership, ReplacementTakesTheFreeRankAndSurvivorsKeepTheirs) {
  Plan previous{.generation = 1, .layout = "", .members = {0, 1, 2, 3}, .live = {0, 1, 2, 3}};
  auto plan = form(2, {report_of(3), report_of(0), report_of(4), report_of(1)}, &previous);
  EXPECT_EQ(plan->members, (std::vector<int64_t>{0, 1, 4, 3}));
  EXPECT_EQ(plan->layout, kLayouts.at(4));
}

TEST(Membership, FewerWorkersTakeTheLargestLayoutAndTheRestAreSpares) {
  Plan previous{.generation = 1, .layout = "", .members = {0, 1, 2, 3}, .live = {0, 1, 2, 3}};
  auto plan = form(2, {report_of(0), report_of(2), report_of(3)}, &previous);
  EXPECT_EQ(plan->layout, "fsdp=2");
  EXPECT_EQ(plan->members, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(plan->live, (std::vector<int64_t>{0, 2, 3}));
}

TEST(Membership, NoLayoutForSoFewIsAnError) {
  Report alone = report_of(0);
  alone.layouts = {{4, "fsdp=4"}};
  auto plan = form(2, {alone}, nullptr);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().message, "no layout of equal work for 1 or fewer ranks; the job wants 4");
  EXPECT_FALSE(form(2, {}, nullptr).ok());
}

TEST(Membership, WireFormsRoundTrip) {
  Report report = survivor(2, 1, {.step = 5, .generation = 3});
  auto again = decode_report(encode(report));
  EXPECT_EQ(again->held, report.held);
  EXPECT_EQ(again->layouts, kLayouts);
  Plan plan{.generation = 4,
            .layout = "fsdp=2",
            .members = {7, 1},
            .live = {7, 1, 3},
            .source = StateSource::memory,
            .snapshot = {.step = 10, .generation = 3}};
  auto plan_again = decode_plan(encode(plan));
  EXPECT_EQ(plan_again->members, plan.members);
  EXPECT_EQ(plan_again->live, plan.live);
  EXPECT_EQ(plan_again->snapshot, plan.snapshot);
  EXPECT_EQ(plan_again->source, StateSource::memory);
  EXPECT_FALSE(decode_plan("{").ok());
}

}  // namespace
}  // namespace tessera::resilience
