#include "recsys_train/remote.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "core/clock.h"
#include "recsys_train/run.h"

namespace tessera::recsys_train {
namespace {

// Servers as threads, each with a store and its two links; what processes do over sockets or shared memory.
class ServerThreads {
 public:
  ServerThreads(const std::vector<recsys::GroupOptions>& groups, int64_t servers) {
    for (int64_t i = 0; i < servers; ++i) {
      stores_.push_back(*recsys::Store::create({.groups = groups}));
      auto read = make_thread_groups(2), update = make_thread_groups(2);
      links_.push_back({std::move(read[0]), std::move(update[0])});
      for (auto* side : {&read[1], &update[1]}) {
        ends_.push_back(std::move(*side));
        threads_.emplace_back([link = ends_.back().get(), store = stores_.back().get()] {
          (void)serve_rows(*link, *store).ok();
        });
      }
    }
  }
  ~ServerThreads() {
    for (auto& thread : threads_) thread.join();
  }
  std::vector<ServerLinks> links() { return std::move(links_); }
  Group& end(size_t number) { return *ends_[number]; }

 private:
  std::vector<std::unique_ptr<recsys::Store>> stores_;
  std::vector<ServerLinks> links_;
  std::vector<std::unique_ptr<Group>> ends_;
  std::vector<std::thread> threads_;
};

RunConfig small_run() {
  RunConfig run;
  run.data = {
      .kind = "synthetic", .seed = 5, .slots = "30,400", .train_rows = 1500, .test_rows = 500, .numbers = 3};
  run.model = {.kind = "wide-deep", .top = {16}};
  run.embedding.dim = 8;
  run.trainer.batch = 32;
  run.trainer.mode = Mode::sync;
  return run;
}

std::vector<float> weights_of(const Setup& setup) {
  at::Tensor flat = setup.model->parameters().flat_values();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

TEST(RemoteServers, GiveTheBitsOfStoresInTheProcess) {
  at::set_num_threads(1);
  RunConfig run = small_run();
  auto local = set_up(run);
  ASSERT_TRUE(local.ok() && train(run, **local, {}).ok());
  for (int64_t servers : {1, 3}) {
    std::unique_ptr<ServerThreads> threads;
    auto remote = set_up(run, nullptr, [&](const auto& groups) -> Result<std::unique_ptr<EmbeddingServers>> {
      threads = std::make_unique<ServerThreads>(groups, servers);
      return make_remote_servers(threads->links(), groups);
    });
    ASSERT_TRUE(remote.ok());
    auto result = train(run, **remote, {});
    ASSERT_TRUE(result.ok()) << result.error().message;
    EXPECT_EQ(weights_of(**local), weights_of(**remote)) << servers;
    auto rows = (*local)->servers->stats(0), far = (*remote)->servers->stats(0);
    ASSERT_TRUE(rows.ok() && far.ok());
    EXPECT_EQ(rows->rows, far->rows);
    remote->reset();  // says goodbye, which ends the threads
  }
}

TEST(RemoteServers, AGradientThatIsNotFiniteIsDroppedAndCountedOnTheServer) {
  std::vector<recsys::GroupOptions> groups(1);
  groups[0].dim = 2;
  ServerThreads threads(groups, 1);
  auto servers = make_remote_servers(threads.links(), groups);
  std::vector<uint64_t> ids = {7, 9};
  std::vector<float> rows(4), again(4);
  ASSERT_TRUE(servers->get(0, ids, rows, recsys::Access::train).ok());
  std::vector<float> gradients = {1, 1, NAN, 1};  // the second row's gradient is dropped and counted
  ASSERT_TRUE(servers->put(0, ids, gradients, {}).ok());
  ASSERT_TRUE(servers->get(0, ids, again, recsys::Access::read).ok());
  EXPECT_NE(rows[0], again[0]);
  EXPECT_EQ(rows[2], again[2]);
  EXPECT_EQ(servers->stats(0)->not_finite_gradients, 1);
}

TEST(RemoteServers, ALostServerIsNamedAndEndsTheRunWithinASecond) {
  at::set_num_threads(1);
  RunConfig run = small_run();
  run.trainer.mode = Mode::hybrid;
  run.data.train_rows = 1 << 20;
  std::unique_ptr<ServerThreads> threads;
  auto setup = set_up(run, nullptr, [&](const auto& groups) -> Result<std::unique_ptr<EmbeddingServers>> {
    threads = std::make_unique<ServerThreads>(groups, 2);
    return make_remote_servers(threads->links(), groups);
  });
  ASSERT_TRUE(setup.ok());
  Clock::time_point lost;
  RunCallbacks callbacks;
  callbacks.on_step = [&](const StepReport& step) {
    if (step.step != 20) return;
    lost = Clock::now();
    for (size_t end : {2, 3}) threads->end(end).abort(make_error(ErrorCode::unavailable, "killed by signal 9"));
  };
  auto result = train(run, **setup, callbacks);
  ASSERT_FALSE(result.ok());
  EXPECT_LT(seconds_since(lost), 1);
  EXPECT_NE(result.error().message.find("embedding server 1: "), std::string::npos) << result.error().message;
  setup->reset();
}

}  // namespace
}  // namespace tessera::recsys_train
