#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "comm/test_groups.h"

namespace tessera {
namespace {

using comm::make_groups;
using comm::on_ranks;
using comm::pattern;
using comm::same;
using comm::Transport;

class GroupOn : public testing::TestWithParam<Transport> {};

INSTANTIATE_TEST_SUITE_P(Transport, GroupOn,
                         testing::Values(Transport::threads, Transport::shared_memory, Transport::tcp,
                                         Transport::mixed),
                         [](const auto& kind) { return comm::name_of(kind.param); });

const std::vector<size_t> kSizes = {0, 1, 31, 4096, 600001};  // the last is far above a ring

TEST_P(GroupOn, AllGatherGivesEveryRankEveryBlock) {
  for (int64_t n = 1; n <= 5; ++n) {
    on_ranks(GetParam(), n, [&](Group& group) {
      for (size_t bytes : kSizes) {
        std::vector<std::byte> mine = pattern(group.rank(), 0, bytes), all(bytes * static_cast<size_t>(n));
        ASSERT_TRUE(group.all_gather(mine, all).ok());
        for (int64_t r = 0; r < n; ++r) {
          std::vector<std::byte> expected = pattern(r, 0, bytes);
          ASSERT_TRUE(same(std::span(all).subspan(static_cast<size_t>(r) * bytes, bytes), expected));
        }
      }
    });
  }
}

TEST_P(GroupOn, AllGatherInPlaceEqualsAllGather) {
  on_ranks(GetParam(), 3, [&](Group& group) {
    std::vector<int64_t> all(3, -1);
    size_t me = static_cast<size_t>(group.rank());
    all[me] = 10 + group.rank();
    std::span<int64_t> mine(&all[me], 1);
    ASSERT_TRUE(group.all_gather(std::as_bytes(mine), std::as_writable_bytes(std::span(all))).ok());
    EXPECT_EQ(all, (std::vector<int64_t>{10, 11, 12}));
  });
}

// Bytes that rank `from` has for rank `to` in round `round`: zero for some pairs.
size_t ragged(int64_t from, int64_t to, int round) {
  return static_cast<size_t>((from * 5 + to * 3 + round) % 4) * (round % 2 == 0 ? 100 : 300001);
}

struct Blocks {
  std::vector<std::vector<std::byte>> out, in;
  std::vector<Bytes> sends;
  std::vector<MutableBytes> receives;

  Blocks(int64_t rank, int64_t size, int round) {
    for (int64_t peer = 0; peer < size; ++peer) {
      out.push_back(pattern(rank, peer, ragged(rank, peer, round)));
      in.emplace_back(ragged(peer, rank, round));
    }
    sends.assign(out.begin(), out.end());
    receives.assign(in.begin(), in.end());
  }
  bool arrived(int64_t rank) const {
    for (size_t peer = 0; peer < in.size(); ++peer) {
      if (!same(in[peer], pattern(static_cast<int64_t>(peer), rank, in[peer].size()))) return false;
    }
    return true;
  }
};

TEST_P(GroupOn, AllToAllWithRaggedAndEmptyBlocksArrives) {
  for (int64_t n = 1; n <= 5; ++n) {
    on_ranks(GetParam(), n, [&](Group& group) {
      for (int round = 0; round < 4; ++round) {
        Blocks blocks(group.rank(), n, round);
        ASSERT_TRUE(group.all_to_all(blocks.sends, blocks.receives).ok());
        ASSERT_TRUE(blocks.arrived(group.rank()));
      }
    });
  }
}

TEST_P(GroupOn, BroadcastFromEveryRootReachesAll) {
  for (int64_t n = 1; n <= 5; ++n) {
    on_ranks(GetParam(), n, [&](Group& group) {
      for (int64_t root = 0; root < n; ++root) {
        for (size_t bytes : kSizes) {
          std::vector<std::byte> data = pattern(group.rank(), 3, bytes);
          ASSERT_TRUE(group.broadcast(root, data).ok());
          ASSERT_TRUE(same(data, pattern(root, 3, bytes)));
        }
      }
    });
  }
}

TEST_P(GroupOn, AllReduceEqualsBruteForce) {
  for (int64_t n = 1; n <= 5; ++n) {
    on_ranks(GetParam(), n, [&](Group& group) {
      for (size_t count : {0u, 1u, 3u, 1000u, 20011u}) {
        auto value = [](int64_t rank, size_t i) { return static_cast<int64_t>(i) * 3 - rank * rank * 1000003; };
        std::vector<int64_t> sums(count);
        std::vector<float> greatest(count);
        for (size_t i = 0; i < count; ++i) {
          sums[i] = value(group.rank(), i);
          greatest[i] = std::sin(static_cast<float>(value(group.rank(), i)));
        }
        ASSERT_TRUE(group.all_reduce_sum(sums).ok());
        ASSERT_TRUE(group.all_reduce_max(greatest).ok());
        for (size_t i = 0; i < count; ++i) {
          int64_t sum = 0;
          float most = -2;
          for (int64_t r = 0; r < n; ++r) {
            sum += value(r, i);
            most = std::max(most, std::sin(static_cast<float>(value(r, i))));
          }
          ASSERT_EQ(sums[i], sum);
          ASSERT_EQ(greatest[i], most);
        }
      }
    });
  }
}

TEST_P(GroupOn, AllReduceMaxKeepsNotANumberFromAnyRank) {
  for (int64_t bad = 0; bad < 3; ++bad) {
    on_ranks(GetParam(), 3, [&](Group& group) {
      std::vector<float> values(4, static_cast<float>(group.rank()));
      if (group.rank() == bad) values[2] = std::numeric_limits<float>::quiet_NaN();
      ASSERT_TRUE(group.all_reduce_max(values).ok());
      EXPECT_TRUE(std::isnan(values[2]));
      EXPECT_EQ(values[1], 2);
    });
  }
}

TEST_P(GroupOn, BarrierLetsNobodyPassEarly) {
  for (int64_t n : {2, 3, 5}) {
    std::atomic<int64_t> entered{0};
    on_ranks(GetParam(), n, [&](Group& group) {
      for (int64_t round = 1; round <= 20; ++round) {
        ++entered;
        ASSERT_TRUE(group.barrier().ok());
        ASSERT_GE(entered.load(), round * n);
        ASSERT_TRUE(group.barrier().ok());
      }
    });
  }
}

TEST_P(GroupOn, MutualLargeSendsBeforeReceivesDoNotBlock) {
  on_ranks(GetParam(), 3, [&](Group& group) {
    constexpr size_t kBytes = 3 << 20;
    for (int round = 0; round < 2; ++round) {
      for (int64_t peer = 0; peer < 3; ++peer) {
        if (peer == group.rank()) continue;
        ASSERT_TRUE(group.send(peer, pattern(group.rank(), peer, kBytes)).ok());
      }
    }
    for (int round = 0; round < 2; ++round) {
      for (int64_t peer = 0; peer < 3; ++peer) {
        std::vector<std::byte> got(kBytes);
        if (peer == group.rank()) continue;
        ASSERT_TRUE(group.recv(peer, got).ok());
        ASSERT_TRUE(same(got, pattern(peer, group.rank(), kBytes)));
      }
    }
  });
}

TEST_P(GroupOn, LargeSendArrivesWhileTheSenderComputes) {
  std::atomic<bool> arrived{false};
  on_ranks(GetParam(), 2, [&](Group& group) {
    std::vector<std::byte> data = pattern(0, 1, 4 << 20);
    if (group.rank() == 0) {
      ASSERT_TRUE(group.send(1, data).ok());
      Deadline patience = Deadline::after(10);
      while (!arrived && !patience.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      EXPECT_TRUE(arrived);
    } else {
      std::vector<std::byte> got(data.size());
      ASSERT_TRUE(group.recv(0, got).ok());
      EXPECT_TRUE(same(got, data));
      arrived = true;
    }
  });
}

TEST_P(GroupOn, BytesSentBeforeAGroupIsDestroyedStayReadable) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(GetParam(), 2);
  std::vector<std::byte> data = pattern(0, 1, 3 << 20), got(data.size());
  std::thread sender([&] {
    EXPECT_TRUE(groups[0]->send(1, data).ok());
    groups[0].reset();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(groups[1]->recv(0, got).ok());
  EXPECT_TRUE(same(got, data));
  sender.join();
  Status more = groups[1]->recv(0, got);
  EXPECT_EQ(more.error().code, ErrorCode::unavailable);
  EXPECT_NE(more.error().message.find("rank 0 has left"), std::string::npos) << more.error().message;
}

// A random program of synchronous and asynchronous operations, the same on all ranks.
TEST_P(GroupOn, RandomMixOfAsynchronousAndSynchronousArrives) {
  for (int64_t n : {2, 4}) {
    on_ranks(GetParam(), n, [&](Group& group) {
      std::mt19937 random(7);
      std::vector<std::unique_ptr<Blocks>> blocks;
      std::vector<Pending> pending;
      for (int round = 0; round < 25; ++round) {
        int choice = static_cast<int>(random() % 5);
        if (choice == 0) {
          ASSERT_TRUE(group.barrier().ok());
        }
        if (choice == 1) {
          ASSERT_TRUE(group.send((group.rank() + 1) % n, pattern(group.rank(), 9, 1300000)).ok());
          std::vector<std::byte> got(1300000);
          ASSERT_TRUE(group.recv((group.rank() + n - 1) % n, got).ok());
          ASSERT_TRUE(same(got, pattern((group.rank() + n - 1) % n, 9, got.size())));
        }
        if (choice < 2) continue;
        blocks.push_back(std::make_unique<Blocks>(group.rank(), n, round));
        if (choice == 2) {
          ASSERT_TRUE(group.all_to_all(blocks.back()->sends, blocks.back()->receives).ok());
        } else {
          pending.push_back(group.start_all_to_all(blocks.back()->sends, blocks.back()->receives));
        }
      }
      for (Pending& operation : pending) ASSERT_TRUE(operation->wait().ok());
      for (std::unique_ptr<Blocks>& block : blocks) ASSERT_TRUE(block->arrived(group.rank()));
    });
  }
}

TEST_P(GroupOn, CallsThatDoNotMatchAreNamedOnBothSides) {
  on_ranks(GetParam(), 2, [](Group& group) {
    std::vector<std::byte> mine(64), all(128);
    Status status = group.rank() == 0 ? group.barrier() : group.all_gather(mine, all);
    ASSERT_FALSE(status.ok());
    const std::string& text = status.error().message;
    EXPECT_NE(text.find("barrier #0"), std::string::npos) << text;
    EXPECT_NE(text.find("all_gather #0 of 64 bytes"), std::string::npos) << text;
    EXPECT_EQ(group.barrier().error().message, text);  // a failed group stays failed
  });
}

TEST_P(GroupOn, MessageOfAnotherSizeIsRefused) {
  on_ranks(GetParam(), 2, [](Group& group) {
    std::vector<std::byte> data(group.rank() == 0 ? 100 : 200);
    if (group.rank() == 0) {
      ASSERT_TRUE(group.send(1, data).ok());
    } else {
      Status status = group.recv(0, data);
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.error().code, ErrorCode::invalid_argument);
      EXPECT_NE(status.error().message.find("send #0 of 100 bytes"), std::string::npos)
          << status.error().message;
      EXPECT_NE(status.error().message.find("recv #0 of 200 bytes"), std::string::npos)
          << status.error().message;
    }
  });
}

TEST_P(GroupOn, PassedDeadlineNamesOperationPeerAndSeconds) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(GetParam(), 3);
  groups[0]->set_timeout(0.2);
  std::vector<std::byte> data(10);
  Clock::time_point start = Clock::now();
  Status status = groups[0]->recv(2, data);
  ASSERT_EQ(status.error().code, ErrorCode::deadline_exceeded);
  EXPECT_GE(seconds_since(start), 0.2);
  EXPECT_LT(seconds_since(start), 1.2);
  for (const char* part : {"recv #0 of 10 bytes", "from rank 2", "0.2 s", "rank 0", "last operations"}) {
    EXPECT_NE(status.error().message.find(part), std::string::npos)
        << part << " in: " << status.error().message;
  }
  EXPECT_EQ(groups[1]->barrier().error().code, ErrorCode::unavailable);  // the failure reached the others
}

TEST_P(GroupOn, AbortEndsEveryWaitAtOnceAndPeersNameTheRank) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(GetParam(), 3);
  std::vector<Status> results(2);
  std::vector<double> seconds(2);
  std::vector<std::thread> threads;
  Clock::time_point aborted;
  for (size_t r : {0u, 1u}) {
    threads.emplace_back([&, r] {
      results[r] = groups[r]->barrier();
      seconds[r] = seconds_since(aborted);
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  aborted = Clock::now();
  groups[0]->abort(make_error(ErrorCode::aborted, "the watchdog said so"));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(results[0].error().message, "the watchdog said so");
  EXPECT_EQ(results[1].error().code, ErrorCode::unavailable);
  bool over_tcp = GetParam() == Transport::tcp || GetParam() == Transport::mixed;  // which carries no reason
  const char* cause = over_tcp ? "rank 0 is gone" : "rank 0 gave up: the watchdog said so";
  EXPECT_NE(results[1].error().message.find(cause), std::string::npos) << results[1].error().message;
  for (double s : seconds) EXPECT_LT(s, 0.5);
  EXPECT_EQ(groups[0]->send(1, {}).error().message, "the watchdog said so");
}

TEST_P(GroupOn, AbortEndsAsynchronousOperationsToo) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(GetParam(), 2);
  std::vector<std::byte> mine(10), all(20);
  Pending pending = groups[0]->start_all_gather(mine, all), next = groups[0]->start_all_gather(mine, all);
  EXPECT_FALSE(pending->done());
  groups[0]->abort(make_error(ErrorCode::aborted, "enough"));
  EXPECT_EQ(pending->wait().error().message, "enough");
  EXPECT_EQ(next->wait().error().message, "enough");
}

TEST_P(GroupOn, GroupDestroyedWhilePeersWaitGivesThemUnavailable) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(GetParam(), 2);
  std::thread leaver([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    groups[1].reset();
  });
  EXPECT_EQ(groups[0]->barrier().error().code, ErrorCode::unavailable);
  leaver.join();
}

TEST_P(GroupOn, WatchdogSeesOperationPeerAndTime) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(GetParam(), 2);
  EXPECT_EQ(groups[0]->current_operation(), "");
  std::thread waiter([&] { EXPECT_FALSE(groups[0]->barrier().ok()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  std::string text = groups[0]->current_operation();
  groups[0]->abort(make_error(ErrorCode::aborted, "seen"));
  waiter.join();
  EXPECT_TRUE(text.starts_with("barrier #0, waiting for rank 1, ")) << text;
}

TEST_P(GroupOn, CountersCountPayloadBytesAndExposedTime) {
  on_ranks(GetParam(), 4, [](Group& group) {
    std::vector<std::byte> mine(1000), all(4000);
    ASSERT_TRUE(group.all_gather(mine, all).ok());
    Pending pending = group.start_all_gather(mine, all);
    ASSERT_TRUE(pending->wait().ok());
    TrafficCounters counters = group.counters();
    EXPECT_EQ(counters.bytes_sent, 2u * 3 * 1000);
    EXPECT_EQ(counters.operations, 2u);
    EXPECT_GT(counters.exposed_s, 0);
    EXPECT_GT(counters.busy_s, 0);
  });
}

TEST_P(GroupOn, WrongArgumentsAreRefusedAndEndTheGroup) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(GetParam(), 2);
  std::vector<std::byte> mine(10), all(30);
  Status status = groups[0]->all_gather(mine, all);
  EXPECT_EQ(status.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(status.error().message.find("needs 20 bytes"), std::string::npos) << status.error().message;
  EXPECT_EQ(groups[1]->barrier().error().code, ErrorCode::unavailable);
}

TEST(SingleGroup, CollectivesAreCopies) {
  std::unique_ptr<Group> group = make_single_group();
  std::vector<std::byte> mine = pattern(0, 0, 100), all(100), back(100);
  EXPECT_TRUE(group->all_gather(mine, all).ok());
  EXPECT_EQ(all, mine);
  EXPECT_TRUE(group->start_all_to_all({mine}, {back})->wait().ok());
  EXPECT_EQ(back, mine);
  EXPECT_TRUE(group->barrier().ok());
  EXPECT_EQ(group->counters().bytes_sent, 0u);
}

TEST(MemoryStore, GetWaitsForTheKeyAndGivesUpAtTheDeadline) {
  std::shared_ptr<Store> store = make_memory_store();
  std::thread setter([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(store->set("a/1", "x").ok());
  });
  EXPECT_EQ(*store->get("a/1", Deadline::after(5)), "x");
  setter.join();
  EXPECT_EQ(store->get("a/2", Deadline::after(0.02)).error().code, ErrorCode::deadline_exceeded);
  EXPECT_EQ(*store->add("a/n", 5), 5);
  EXPECT_EQ(*store->add("a/n", -7), -2);
  EXPECT_EQ(**store->try_get("a/n"), "-2");
  EXPECT_FALSE(store->add("a/1", 1).ok());
  EXPECT_EQ(*store->erase_prefix("a/"), 2);
  EXPECT_FALSE(store->try_get("a/1")->has_value());
}

}  // namespace
}  // namespace tessera
