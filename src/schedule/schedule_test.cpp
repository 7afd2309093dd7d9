#include "schedule/schedule.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Schedule, GeneratedTablesAreValid) {
  for (auto kind : {PipelineSchedule::gpipe, PipelineSchedule::one_f_one_b})
    for (int64_t stages = 1; stages <= 8; ++stages)
      for (int64_t slots = 1; slots <= 12; ++slots)
        EXPECT_TRUE(validate(make_schedule(kind, stages, slots)).ok());
}

// (p - 1) / m of the ideal time is the bubble of both (Narayanan et al. 2021, section 2.2).
TEST(Schedule, BubbleIsTheClosedForm) {
  for (auto kind : {PipelineSchedule::gpipe, PipelineSchedule::one_f_one_b})
    for (int64_t p : {1, 2, 4, 8})
      for (int64_t m : {8, 12, 16}) {
        std::vector<double> forward(static_cast<size_t>(p), 1), backward(static_cast<size_t>(p), 2);
        EXPECT_DOUBLE_EQ(makespan(make_schedule(kind, p, m), forward, backward, 0),
                         static_cast<double>(3 * (m + p - 1)));
      }
}

TEST(Schedule, OneFOneBHoldsStagesMinusStageMicroBatches) {
  Schedule schedule = make_schedule(PipelineSchedule::one_f_one_b, 4, 12);
  for (int64_t stage = 0; stage < 4; ++stage) EXPECT_EQ(peak_slots_in_flight(schedule, stage), 4 - stage);
  EXPECT_EQ(peak_slots_in_flight(make_schedule(PipelineSchedule::gpipe, 4, 12), 3), 12);
}

TEST(Schedule, ValidatorRefusesBrokenTables) {
  Schedule good = make_schedule(PipelineSchedule::one_f_one_b, 2, 3);
  Schedule missing = good;
  missing.table[0].pop_back();
  EXPECT_FALSE(validate(missing).ok());
  Schedule early = good;
  std::swap(early.table[1][0], early.table[1][1]);
  EXPECT_FALSE(validate(early).ok());
  Schedule circle = make_schedule(PipelineSchedule::gpipe, 2, 2);
  circle.table[0] = {
      {Action::forward, 0, 0}, {Action::backward, 0, 0}, {Action::forward, 0, 1}, {Action::backward, 0, 1}};
  EXPECT_FALSE(validate(circle).ok());  // stage 1 runs both forwards before its first backward
}

}  // namespace
}  // namespace tessera
