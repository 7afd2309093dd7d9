#include "schedule/schedule.h"

#include <gtest/gtest.h>

#include "schedule/recurrence.h"

namespace tessera {
namespace {

constexpr PipelineKind kTabled[] = {PipelineKind::gpipe, PipelineKind::one_f_one_b, PipelineKind::zb_h1,
                                    PipelineKind::zb_h2, PipelineKind::zb_v,        PipelineKind::dualpipe};

TEST(Schedule, GeneratedTablesAreValid) {
  int64_t made = 0;
  for (PipelineKind kind : kTabled)
    for (int64_t stages = 1; stages <= 8; ++stages)
      for (int64_t slots = 1; slots <= 24; ++slots)
        for (int64_t virtual_stages : {1, 2, 3}) {
          if (virtual_stages > 1 && kind != PipelineKind::one_f_one_b) continue;
          int64_t chunks = chunks_of(kind, virtual_stages);
          if (!check_table(kind, stages, chunks, slots).ok()) continue;
          Status status = validate(make_schedule(kind, stages, chunks, slots));
          EXPECT_TRUE(status.ok()) << static_cast<int>(kind) << " " << stages << " " << slots << " "
                                   << status.error().message;
          ++made;
        }
  EXPECT_GT(made, 1000);
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

double longest_less_busy(PipelineKind kind, int64_t stages, int64_t chunks, int64_t slots,
                         const PieceTime& piece) {
  Schedule schedule = make_schedule(kind, stages, chunks, slots);
  std::vector<PieceTime> pieces(static_cast<size_t>(pieces_of(kind, stages, chunks)), piece);
  double longest = 0;
  for (const auto& row : spans(schedule, pieces, 0))
    longest = std::max(longest, row.back().end - row.front().start);
  // Each slot meets each stage once for each chunk, DualPipe's once in all.
  return longest - static_cast<double>(slots * (kind == PipelineKind::dualpipe ? 1 : chunks)) * piece.total();
}

// Qi et al. 2023, table 1 and section 6. ZB-V's order is that for equal times; it keeps (p - 1)(F + B - 2 W) of
// its chunks while F = B >= W, nothing where all three are equal.
TEST(Schedule, ZeroBubbleTablesHaveTheBubblesOfTheirPaper) {
  for (int64_t p : {2, 4, 6, 8, 16})
    for (int64_t m : {2 * p, 2 * p + 2, 3 * p, 5 * p})
      for (const PieceTime& t : {PieceTime{1, 1, 1}, {1, 1, 0.75}, {2, 2, 1}}) {
        double pass = t.forward + t.backward_input, before = static_cast<double>(p - 1);
        EXPECT_NEAR(longest_less_busy(PipelineKind::zb_h1, p, 1, m, t), before * (pass - t.backward_weight),
                    1e-9);
        EXPECT_NEAR(longest_less_busy(PipelineKind::zb_h2, p, 1, m, t), before * (pass - 2 * t.backward_weight),
                    1e-9);
        EXPECT_NEAR(longest_less_busy(PipelineKind::zb_v, p, 2, m, t), before * (pass - 2 * t.backward_weight),
                    1e-9);
      }
}

// DeepSeek-V3 report, table 2: (p / 2 - 1)(F&B + B - 3 W) with B the whole backward, while F equals B less W.
TEST(Schedule, DualPipeHasTheBubbleOfItsPaper) {
  for (int64_t p : {2, 4, 6, 8, 16})
    for (int64_t m : {2 * p, 2 * p + 2, 3 * p, 6 * p})
      for (const PieceTime& t : {PieceTime{1, 1, 1}, {1, 1, 0.5}, {2, 2, 1.5}}) {
        double backward = t.backward_input + t.backward_weight, pair = t.forward + backward;
        EXPECT_NEAR(longest_less_busy(PipelineKind::dualpipe, p, 2, m, t),
                    static_cast<double>(p / 2 - 1) * (pair + backward - 3 * t.backward_weight), 1e-9)
            << p << " " << m;
      }
}

// A stage's pairs take what two actions one after the other take, less what they save.
TEST(Schedule, PairsOfDualPipeSaveTimeOfEveryStage) {
  Schedule schedule = make_schedule(PipelineKind::dualpipe, 4, 2, 16);
  std::vector<PieceTime> apart(4, {1, 1, 1}), together(4, {1, 1, 1, 0.5});
  auto slow = spans(schedule, apart, 0), fast = spans(schedule, together, 0);
  for (size_t stage = 0; stage < 4; ++stage) {
    int64_t pairs = std::count_if(schedule.table[stage].begin(), schedule.table[stage].end(),
                                  [](const Action& a) { return a.paired && a.kind == Action::forward; });
    EXPECT_GE(pairs, 16 - 4 - 2);
    EXPECT_LE(fast[stage].back().end, slow[stage].back().end - 0.5 * static_cast<double>(pairs - 2));
  }
}

// Micro-batches of a whole stage: 1F1B and ZB-H1 p on the first stage, ZB-H2 2 p - 1, ZB-V p on every stage (as
// 2 p halves), DualPipe p + 1 of either copy.
TEST(Schedule, TablesHoldTheActivationsOfTheirPapers) {
  for (int64_t p : {2, 4, 8, 16})
    for (int64_t m : {2 * p, 3 * p, 6 * p})
      for (int64_t stage = 0; stage < p; ++stage) {
        auto held = [&](PipelineKind kind) {
          return peak_slots_in_flight(make_schedule(kind, p, chunks_of(kind, 1), m), stage);
        };
        EXPECT_EQ(held(PipelineKind::one_f_one_b), p - stage);
        EXPECT_EQ(held(PipelineKind::zb_h1), p);
        EXPECT_EQ(held(PipelineKind::zb_h2), 2 * p - 1);
        EXPECT_EQ(held(PipelineKind::zb_v), 2 * p);
        EXPECT_EQ(held(PipelineKind::dualpipe), p + 1);
      }
}

// ZB-H1, section 4.1: stage i keeps p - i micro-batches for their backward and puts off weights of i.
TEST(Schedule, LaterStagesOfZeroBubbleHoldWhatWeightGradientsNeed) {
  int64_t p = 8;
  Schedule schedule = make_schedule(PipelineKind::zb_h1, p, 1, 4 * p);
  for (int64_t stage = 0; stage < p; ++stage) {
    int64_t kept = 0, deferred = 0, both = 0;
    for (const HeldSlots& moment : peaks_in_flight(schedule, stage)) {
      kept = std::max(kept, moment.kept[0]), deferred = std::max(deferred, moment.deferred[0]);
      both = std::max(both, moment.kept[0] + moment.deferred[0]);
    }
    EXPECT_EQ(kept, p - stage);
    EXPECT_EQ(deferred, stage + 1);  // with the one whose weights run next
    EXPECT_EQ(both, p);
  }
}

TEST(Schedule, DualPipeHoldsMoreOfTheCopyThatIsNearer) {
  Schedule schedule = make_schedule(PipelineKind::dualpipe, 8, 2, 32);
  for (int64_t stage = 0; stage < 8; ++stage) {
    int64_t near = 0, far = 0;
    for (const HeldSlots& moment : peaks_in_flight(schedule, stage)) {
      near = std::max(near, moment.kept[stage < 4 ? 0 : 1]),
      far = std::max(far, moment.kept[stage < 4 ? 1 : 0]);
    }
    int64_t inside = std::min(stage, 7 - stage);
    EXPECT_EQ(near, 8 - inside);
    EXPECT_EQ(far, inside + 1);
  }
}

TEST(Schedule, TablesThatCannotBeMadeAreRefusedByTheirFigures) {
  EXPECT_FALSE(check_table(PipelineKind::dualpipe, 3, 2, 12).ok());
  Status few = check_table(PipelineKind::dualpipe, 4, 2, 6);
  ASSERT_FALSE(few.ok());
  EXPECT_NE(few.error().message.find("at least 8"), std::string::npos) << few.error().message;
  EXPECT_FALSE(check_table(PipelineKind::dualpipe, 4, 2, 9).ok());
  EXPECT_FALSE(check_table(PipelineKind::one_f_one_b, 4, 2, 6).ok());
  EXPECT_TRUE(check_table(PipelineKind::one_f_one_b, 4, 1, 6).ok());
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

TEST(Schedule, ValidatorRefusesBrokenTwoPartBackwards) {
  Schedule good = make_schedule(PipelineKind::zb_v, 3, 2, 6);
  ASSERT_TRUE(validate(good).ok());
  Schedule no_weights = good;
  std::erase_if(no_weights.table[1],
                [](const Action& a) { return a.kind == Action::backward_weight && a.slot == 2; });
  EXPECT_FALSE(validate(no_weights).ok());
  Schedule early = good;
  auto input = std::find_if(early.table[1].begin(), early.table[1].end(),
                            [](const Action& a) { return a.kind == Action::backward_input; });
  ASSERT_EQ((input + 1)->kind, Action::backward_weight);
  std::swap(*input, *(input + 1));
  EXPECT_FALSE(validate(early).ok());
  Schedule alone = make_schedule(PipelineKind::dualpipe, 4, 2, 8);
  auto pair =
      std::find_if(alone.table[0].begin(), alone.table[0].end(), [](const Action& a) { return a.paired; });
  (pair + 1)->paired = false;
  EXPECT_FALSE(validate(alone).ok());
  Schedule other_copy = make_schedule(PipelineKind::dualpipe, 4, 2, 8);
  other_copy.table[0][0].slot = 4;  // chunk 0 works on the first half of the slots only
  EXPECT_FALSE(validate(other_copy).ok());
}

// By hand: stage 1 is three times slower. F0 0-1, F0' 1-4, B0' 4-7, F1 1-2 on stage 0 waits at stage 1 until
// 7-10.
TEST(Schedule, RecurrenceOfUnevenStagesIsTheOneDoneByHand) {
  Schedule schedule = make_schedule(PipelineKind::one_f_one_b, 2, 1, 2);
  auto at = spans(schedule, {{1, 1, 0}, {3, 3, 0}}, 0.5);
  EXPECT_DOUBLE_EQ(at[1][0].start, 1.5);  // F0
  EXPECT_DOUBLE_EQ(at[1][1].end, 7.5);    // B0
  EXPECT_DOUBLE_EQ(at[0][2].start, 8);    // B0 of stage 0, after its gradient has travelled
  EXPECT_DOUBLE_EQ(at[1][3].end, 13.5);   // B1
  EXPECT_DOUBLE_EQ(at[0][3].end, 15);
}

}  // namespace
}  // namespace tessera
