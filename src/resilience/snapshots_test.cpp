#include "resilience/snapshots.h"

#include <gtest/gtest.h>

#include <barrier>
#include <thread>

#include "checkpoint/testing_pieces.h"
#include "resilience/peer_state.h"

namespace tessera::resilience {
namespace {

using checkpoint::testing::pieces_of_rank;
using checkpoint::testing::tiny_model;
using checkpoint::testing::wrong_elements;

const Work kWork{.seq = 8, .micro_batch = 1, .global_batch = 4, .tp_blocks = 2, .seq_chunks = 2};

// Runs body(rank, group) on as many threads as there are ranks.
void on_ranks(int64_t ranks, const std::function<void(int64_t, Group&)>& body) {
  auto groups = make_thread_groups(ranks);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] { body(rank, *groups[static_cast<size_t>(rank)]); });
  for (auto& thread : threads) thread.join();
}

Layout layout_of(const char* text) {
  return parse_layout(text).value();
}

// Snapshots of steps 1 to `steps` by every rank of a layout; values of step s are version s.
std::vector<Snapshots> taken(const ModelSpec& model, const Layout& layout, int64_t steps) {
  std::vector<Snapshots> all(static_cast<size_t>(layout.processes()));
  on_ranks(layout.processes(), [&](int64_t rank, Group& group) {
    Snapshots& mine = all[static_cast<size_t>(rank)];
    mine.join(1, &group);
    for (int64_t step = 1; step <= steps; ++step) {
      EXPECT_TRUE(mine.take(step, pieces_of_rank(model, kWork, layout, rank, step)).ok());
      EXPECT_TRUE(mine.commit().ok());
    }
    mine.leave();
  });
  return all;
}

TEST(Snapshots, KeepTheTwoNewestOwnAndNeighbours) {
  auto all = taken(tiny_model(true), layout_of("fsdp=2,ep=2,pp=2"), 3);
  for (int64_t rank = 0; rank < 4; ++rank) {
    auto held = all[static_cast<size_t>(rank)].held();
    ASSERT_EQ(held.size(), 4u);
    EXPECT_EQ(held[0], (HeldPart{{2, 1}, 4, rank, true}));
    EXPECT_EQ(held[1], (HeldPart{{2, 1}, 4, (rank + 3) % 4, false}));
    EXPECT_EQ(held[2].snapshot, (SnapshotId{3, 1}));
  }
}

TEST(Snapshots, ExchangeUnderWayAtAnAbortIsNotHeld) {
  auto model = tiny_model(false);
  Layout layout = layout_of("dp=2");
  std::barrier both_committed(2);  // not the group's: an abort reaches a peer that still is in an operation
  on_ranks(2, [&](int64_t rank, Group& group) {
    Snapshots mine;
    mine.join(1, &group);
    EXPECT_TRUE(mine.take(1, pieces_of_rank(model, kWork, layout, rank, 1)).ok());
    EXPECT_TRUE(mine.commit().ok());
    both_committed.arrive_and_wait();
    group.abort(make_error(ErrorCode::aborted, "a peer died"));
    (void)mine.take(2, pieces_of_rank(model, kWork, layout, rank, 2));
    EXPECT_FALSE(mine.commit().ok());
    mine.leave();
    ASSERT_EQ(mine.held().size(), 2u);
    EXPECT_EQ(mine.held()[0].snapshot.step, 1);
  });
}

// The ranks of the old layout without `lost` give, those of the new one need; values come from the closed form.
void recover(const char* old_text, int64_t lost, const char* new_text, int64_t live) {
  SCOPED_TRACE(fmt::format("{} without rank {} to {}", old_text, lost, new_text));
  auto model = tiny_model(true);
  Layout old_layout = layout_of(old_text), new_layout = layout_of(new_text);
  auto all = taken(model, old_layout, 2);
  std::vector<Snapshots*> place(static_cast<size_t>(live), nullptr);  // a replacement holds nothing
  int64_t next = 0;
  for (int64_t rank = 0; rank < old_layout.processes(); ++rank) {
    bool replaced = live == old_layout.processes();
    if (rank != lost) place[static_cast<size_t>(replaced ? rank : next)] = &all[static_cast<size_t>(rank)];
    if (rank != lost || replaced) ++next;
  }
  on_ranks(live, [&](int64_t rank, Group& group) {
    std::vector<NeededBox> needed;
    bool member = rank < new_layout.processes();
    if (member) needed = boxes_of(pieces_of_rank(model, kWork, new_layout, rank));
    Snapshots* mine = place[static_cast<size_t>(rank)];
    auto held = mine ? mine->parts_of({2, 1}) : std::vector<const Snapshots::Part*>();
    auto pieces = fetch_from_peers(group, needed, held);
    ASSERT_TRUE(pieces.ok()) << pieces.error().message;
    if (!member) return;
    auto wrong = wrong_elements(*pieces, model, kWork, new_layout, rank, 2);
    ASSERT_TRUE(wrong.ok()) << wrong.error().message;
    EXPECT_EQ(*wrong, 0);
  });
}

TEST(PeerState, ReplacementGetsTheLostRanksStateFromItsNeighbour) {
  for (int64_t lost = 0; lost < 4; ++lost) recover("fsdp=2,ep=2,pp=2", lost, "fsdp=2,ep=2,pp=2", 4);
}

TEST(PeerState, FewerRanksOfAnotherLayoutGetTheState) {
  recover("fsdp=2,ep=2,pp=2", 2, "fsdp=2", 3);
  recover("fsdp=4,ep=4", 0, "tp=2", 3);
  recover("tp=2,pp=2", 3, "dp=1", 3);
}

TEST(PeerState, MissingStateIsNamed) {
  auto model = tiny_model(false);
  Layout layout = layout_of("pp=2");
  auto all = taken(model, layout, 1);
  on_ranks(1, [&](int64_t, Group& group) {
    auto needed = boxes_of(pieces_of_rank(model, kWork, layout_of("dp=1"), 0));
    std::vector<const Snapshots::Part*> held = {all[0].parts_of({1, 1})[0]};  // of stage 0 only
    auto pieces = fetch_from_peers(group, needed, held);
    ASSERT_FALSE(pieces.ok());
    EXPECT_EQ(pieces.error().code, ErrorCode::not_found);
    EXPECT_NE(pieces.error().message.find("peers hold 0 of"), std::string::npos) << pieces.error().message;
  });
}

TEST(PeerState, FlippedBitInASnapshotIsFound) {
  auto model = tiny_model(false);
  auto all = taken(model, layout_of("dp=2"), 1);
  on_ranks(1, [&](int64_t, Group& group) {
    Snapshots::Part torn = *all[0].parts_of({1, 1})[0];
    torn.bytes.back() ^= std::byte{1};
    std::vector<const Snapshots::Part*> held = {&torn};
    EXPECT_EQ(fetch_from_peers(group, {}, held).error().code, ErrorCode::data_loss);
  });
}

}  // namespace
}  // namespace tessera::resilience
