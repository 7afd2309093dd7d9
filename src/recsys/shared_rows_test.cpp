#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "recsys/journal.h"
#include "recsys/row_update.h"
#include "recsys/shared_file.h"
#include "recsys/store.h"
#include "recsys/testing_oracle.h"

namespace tessera::recsys {
namespace {

GroupOptions trained() {
  GroupOptions group{.name = "user", .dim = 24};
  group.optimizer.kind = OptimizerOptions::Kind::adam;
  return group;
}
StoreOptions on(const std::vector<std::string>& files, const GroupOptions& group = trained()) {
  return {.groups = {group}, .num_shards = 4, .memory_files = files};
}
std::unique_ptr<Store> open(const std::vector<std::string>& files) {
  auto store = Store::create(on(files));
  EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().message);
  return store.ok() ? *std::move(store) : nullptr;
}

constexpr uint64_t kPuts = 600, kSender = 7;

// Put number `sequence` of the run: a function of its number.
void apply(Store& store, uint64_t sequence) {
  std::mt19937_64 random(sequence);
  std::vector<uint64_t> ids(300);
  for (uint64_t& id : ids) id = random() % 2000;
  std::vector<float> rows(ids.size() * 24), gradients(rows.size());
  for (float& g : gradients) g = static_cast<float>(random() % 2000) * 1e-3f - 1;
  PutOptions options{.step = sequence, .sender = kSender, .sequence = sequence};
  bool done = store.get(0, ids, rows).ok() && store.put(0, ids, gradients, options).ok();
  if (!done) ::_exit(3);
}

std::map<uint64_t, std::vector<std::byte>> state_of(const Store& store) {
  std::map<uint64_t, std::vector<std::byte>> state;
  Status status = store.for_each(0, [&](uint64_t id, std::span<const std::byte> record) {
    state[id].assign(record.begin(), record.end());
  });
  EXPECT_TRUE(status.ok()) << status.error().message;
  return state;
}

// A server process: applies puts from the first that was not acknowledged, and acknowledges each through the
// pipe.
pid_t start_server(const std::vector<std::string>& files, uint64_t first, int pipe) {
  pid_t child = ::fork();
  if (child != 0) return child;
  auto store = Store::create(on(files));
  if (!store) ::_exit(2);
  for (uint64_t sequence = first; sequence <= kPuts; ++sequence) {
    apply(**store, sequence);
    if (::write(pipe, &sequence, sizeof sequence) != sizeof sequence) ::_exit(4);
  }
  ::_exit(0);
}

TEST(SharedRowsTest, KilledServersLoseNothingAndApplyNothingTwice) {
  auto keeper = MemoryKeeper::create(2);
  ASSERT_TRUE(keeper.ok());
  std::vector<std::string> files = (*keeper)->paths();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  std::mt19937_64 random(11);
  uint64_t acknowledged = 0;
  int kills = 0;
  for (int status = -1; status != 0;) {
    pid_t server = start_server(files, acknowledged + 1, ends[1]);
    bool kill = kills < 25;
    if (kill) {
      // The first answer shows that it is at work; then it dies within its next puts.
      uint64_t sequence = 0;
      ASSERT_EQ(::read(ends[0], &sequence, sizeof sequence), static_cast<ssize_t>(sizeof sequence));
      acknowledged = sequence;
      ::usleep(static_cast<useconds_t>(random() % 300));
      ::kill(server, SIGKILL);
      ++kills;
    }
    ASSERT_EQ(::waitpid(server, &status, 0), server);
    ASSERT_TRUE(status == 0 || (kill && WIFSIGNALED(status))) << status;
    // What was acknowledged before the death is acknowledged.
    ::alarm(60);
    for (pollfd ready{ends[0], POLLIN, 0}; ::poll(&ready, 1, 0) == 1;) {
      uint64_t sequence = 0;
      ASSERT_EQ(::read(ends[0], &sequence, sizeof sequence), static_cast<ssize_t>(sizeof sequence));
      acknowledged = sequence;
    }
    ::alarm(0);
  }
  EXPECT_EQ(acknowledged, kPuts);
  EXPECT_GT(kills, 5);
  auto survivor = open(files);
  auto undisturbed = *Store::create({.groups = {trained()}, .num_shards = 4});
  for (uint64_t sequence = 1; sequence <= kPuts; ++sequence) apply(*undisturbed, sequence);
  EXPECT_EQ(state_of(*survivor), state_of(*undisturbed));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(SharedRowsTest, ATornRowGetsItsOldBytesBackAndThePutGoesOnBehindIt) {
  auto keeper = MemoryKeeper::create(2);
  std::vector<std::string> files = (*keeper)->paths();
  std::vector<uint64_t> ids = {1, 2, 3};
  std::vector<float> rows(72), gradients(72, 0.5f);
  PutOptions options{.step = 1, .sender = kSender, .sequence = 1};
  auto expected = *Store::create({.groups = {trained()}, .num_shards = 1});
  ASSERT_TRUE(expected->get(0, ids, rows));
  ASSERT_TRUE(expected->put(0, ids, gradients, options).ok());
  StoreOptions one_shard = on(files);
  one_shard.num_shards = 1;
  {
    // The death of a server after one of three rows, in the middle of the second: its half is another gradient.
    auto store = *Store::create(one_shard);
    std::span<const uint64_t> all(ids);
    std::span<const float> one(gradients.data(), 24);
    ASSERT_TRUE(store->get(0, ids, rows));
    ASSERT_TRUE(store->put(0, all.first(1), one, {.step = 1}).ok());
    ASSERT_TRUE(store->put(0, all.subspan(1, 1), one, {.step = 1}).ok());
  }
  {
    auto journal = *Journal::open(files[1], RecordLayout(trained()).bytes);
    auto ticket = *journal->begin(0, kSender, 1);
    ticket.slot->shard = 0;
    ticket.slot->row = 1;  // rows are numbered as they were made
    auto store_state = *Store::create({.groups = {trained()}, .num_shards = 1});
    ASSERT_TRUE(store_state->get(0, ids, rows));
    std::vector<std::byte> old = state_of(*store_state)[2];
    std::memcpy(ticket.slot->old_record(), old.data(), old.size());
    ticket.slot->state = 2 * 1 + 1;
  }
  // Two more deaths before the sender comes back.
  for (int death = 0; death < 2; ++death) ASSERT_TRUE(Store::create(one_shard).ok());
  auto store = *Store::create(one_shard);
  EXPECT_EQ(store->applied(kSender), 0u);
  auto count = store->put(0, ids, gradients, options);
  ASSERT_TRUE(count.ok());
  EXPECT_EQ(count->updated, 2);
  EXPECT_EQ(state_of(*store), state_of(*expected));
  EXPECT_EQ(store->applied(kSender), 1u);
  EXPECT_TRUE(store->put(0, ids, gradients, options)->repeated);
  EXPECT_EQ(state_of(*store), state_of(*expected));
}

TEST(SharedRowsTest, FilesAreRefusedToASecondStoreAndToOtherGroups) {
  auto keeper = MemoryKeeper::create(2);
  std::vector<std::string> files = (*keeper)->paths();
  {
    auto store = open(files);
    auto second = Store::create(on(files));
    ASSERT_FALSE(second.ok());
    EXPECT_NE(second.error().message.find("in use"), std::string::npos);
  }
  GroupOptions other = trained();
  other.optimizer.kind = OptimizerOptions::Kind::adamw;
  auto refused = Store::create(on(files, other));
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("optimizer"), std::string::npos);
  EXPECT_NE(open(files), nullptr);
}

TEST(SharedRowsTest, StoreEqualsAMapAcrossRestarts) {
  auto keeper = MemoryKeeper::create(2);
  std::vector<std::string> files = (*keeper)->paths();
  GroupOptions group{.dim = 5};
  group.admission = {.kind = AdmissionOptions::Kind::probability, .probability = 0.3};
  group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = 4000};
  bool fresh = true;  // the first store that is asked for is the oracle's own
  auto make = [&] {
    return *Store::create(std::exchange(fresh, false) ? StoreOptions{.groups = {group}, .num_shards = 4}
                                                      : on(files, group));
  };
  auto restart = [&](std::unique_ptr<Store>& store) {
    store.reset();
    store = *Store::create(on(files, group));
  };
  testing::OracleReport report = testing::Oracle(4, make, restart).run(20'000);
  EXPECT_EQ(report.mismatches, 0);
  EXPECT_GT(report.restarts, 5);
  EXPECT_GT(report.evicted, 100);
}

}  // namespace
}  // namespace tessera::recsys
