#include "comm/process_group.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "comm/socket.h"
#include "comm/test_groups.h"

namespace tessera::comm {
namespace {

using Joined = Result<std::unique_ptr<Group>>;

int open_descriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

// Both ranks of a pair join at once with their own options.
std::pair<Joined, Joined> join_pair(Store& store, GroupOptions lower, GroupOptions higher) {
  Joined first = invalid("not run"), second = invalid("not run");
  std::thread thread([&] { second = make_process_group(store, higher); });
  first = make_process_group(store, lower);
  thread.join();
  return {std::move(first), std::move(second)};
}

class Rendezvous : public testing::TestWithParam<GroupOptions::Transport> {
 protected:
  GroupOptions options(int64_t rank, int64_t size = 2) {
    GroupOptions made = test_options("pair", rank, size);
    made.transport = GetParam();
    made.timeout_s = 0.7;
    return made;
  }
  std::shared_ptr<Store> store_ = make_memory_store();
};

INSTANTIATE_TEST_SUITE_P(Over, Rendezvous, testing::Values(GroupOptions::shared_memory, GroupOptions::tcp),
                         [](const auto& kind) {
                           return kind.param == GroupOptions::tcp ? "Tcp" : "SharedMemory";
                         });

TEST_P(Rendezvous, WrongTokenIsRefused) {
  GroupOptions wrong = options(1);
  wrong.token = "secreT";
  auto [lower, higher] = join_pair(*store_, options(0), wrong);
  ASSERT_FALSE(lower.ok());
  ASSERT_FALSE(higher.ok());
  EXPECT_EQ(lower.error().code, ErrorCode::deadline_exceeded);
  EXPECT_NE(lower.error().message.find("rank 1 has not connected in time"), std::string::npos);
  EXPECT_NE(higher.error().message.find("same job token"), std::string::npos) << higher.error().message;
}

TEST_P(Rendezvous, DifferentRingSizesAreRefused) {
  GroupOptions other = options(1);
  other.ring_bytes = 1 << 17;
  auto [lower, higher] = join_pair(*store_, options(0), other);
  EXPECT_FALSE(lower.ok());
  EXPECT_FALSE(higher.ok());
}

TEST_P(Rendezvous, MissingPeerIsNamedAtTheDeadline) {
  Clock::time_point start = Clock::now();
  Joined alone = make_process_group(*store_, options(0));
  ASSERT_FALSE(alone.ok());
  EXPECT_EQ(alone.error().code, ErrorCode::deadline_exceeded);
  EXPECT_NE(alone.error().message.find("rank 1 has not announced itself"), std::string::npos)
      << alone.error().message;
  EXPECT_LT(seconds_since(start), 2);
}

// Connections that are none of ours: garbage, a closed one, a silent one and half a hello.
TEST_P(Rendezvous, StrayConnectionsDoNotDisturb) {
  Joined lower = invalid("not run");
  GroupOptions patient = options(0);
  patient.timeout_s = 10;
  std::thread thread([&] { lower = make_process_group(*store_, patient); });
  std::string card = *store_->get("comm/pair/0", Deadline::after(5));
  std::vector<std::string> lines;
  for (size_t end; (end = card.find('\n')) != std::string::npos; card.erase(0, end + 1)) {
    lines.push_back(card.substr(0, end));
  }
  std::vector<Descriptor> strangers;
  for (std::string words :
       {std::string(200, 'x'), std::string(), std::string("TESSERA1\x04"), std::string("T")}) {
    auto stranger = GetParam() == GroupOptions::tcp
                        ? connect_tcp("127.0.0.1", std::stoi(lines[4]), Deadline::after(2))
                        : connect_unix(lines[2], Deadline::after(2));
    ASSERT_TRUE(stranger.ok()) << stranger.error().message;
    ASSERT_TRUE(send_all(*stranger, std::as_bytes(std::span(words)), Deadline::after(2)).ok());
    if (words.size() > 1) strangers.push_back(std::move(*stranger));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  GroupOptions late = options(1);
  late.timeout_s = 10;
  Joined higher = make_process_group(*store_, late);
  thread.join();
  ASSERT_TRUE(lower.ok()) << lower.error().message;
  ASSERT_TRUE(higher.ok()) << higher.error().message;
  std::vector<std::byte> data = pattern(0, 1, 100), got(100);
  ASSERT_TRUE((*lower)->send(1, data).ok());
  ASSERT_TRUE((*higher)->recv(0, got).ok());
  EXPECT_EQ(got, data);
}

TEST_P(Rendezvous, JobRanksNeedNotBeGroupRanks) {
  GroupOptions lower = options(0), higher = options(1);
  lower.members = higher.members = {7, 3};
  lower.my_rank = 7;
  higher.my_rank = 3;
  auto [first, second] = join_pair(*store_, lower, higher);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ((*first)->rank(), 0);
  EXPECT_EQ((*second)->rank(), 1);
  (*first)->set_timeout(0.05);
  std::byte byte{};
  Status status = (*first)->recv(1, {&byte, 1});
  EXPECT_NE(status.error().message.find("rank 1 (job rank 3)"), std::string::npos) << status.error().message;
}

TEST_P(Rendezvous, SenselessOptionsAreReadableErrors) {
  GroupOptions stranger = options(5);
  EXPECT_NE(make_process_group(*store_, stranger).error().message.find("not among the 2 members"),
            std::string::npos);
  GroupOptions nameless = options(0);
  nameless.name = "";
  EXPECT_EQ(make_process_group(*store_, nameless).error().code, ErrorCode::invalid_argument);
}

TEST(ProcessGroup, ManyGroupsAtOnceWorkAndLeaveNoDescriptor) {
  int before = open_descriptors();
  for (Transport transport : {Transport::shared_memory, Transport::tcp, Transport::mixed}) {
    std::vector<std::vector<std::unique_ptr<Group>>> groups;
    for (int g = 0; g < 6; ++g) groups.push_back(make_groups(transport, 4));
    std::vector<std::thread> ranks;
    for (size_t r = 0; r < 4; ++r) {
      ranks.emplace_back([&, r] {
        std::vector<std::vector<int64_t>> sums(groups.size(),
                                               std::vector<int64_t>(1000, static_cast<int64_t>(r)));
        for (size_t g = 0; g < groups.size(); ++g) {
          ASSERT_TRUE(groups[g][r]->all_reduce_sum(sums[g]).ok());
          EXPECT_EQ(sums[g], std::vector<int64_t>(1000, 6));
        }
      });
    }
    for (std::thread& rank : ranks) rank.join();
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(ProcessGroup, FailedJoinLeavesNoDescriptor) {
  int before = open_descriptors();
  std::shared_ptr<Store> store = make_memory_store();
  GroupOptions options = test_options("alone", 0, 2);
  options.timeout_s = 0.05;
  EXPECT_FALSE(make_process_group(*store, options).ok());
  EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
}  // namespace tessera::comm
