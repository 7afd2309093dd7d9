// The engine through its own interface, with ranks as threads: losses, slower tiers of the cache,
// cancellations.
#include "serve/engine.h"

#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <random>

#include "serve/testing_team.h"

namespace tessera::serve {
namespace {

// The shared small model, or nothing where it is not.
std::optional<std::filesystem::path> small_model() {
  const char* given = std::getenv("TESSERA_SHARED");
  std::filesystem::path shared = given ? given : std::filesystem::path(TESSERA_SOURCE_DIR) / "../shared";
  auto model = shared / "data/models/stories260K";
  return std::filesystem::exists(model) ? std::optional(model) : std::nullopt;
}

// Few blocks, so that requests wait, yield and come back.
batching::SchedulerOptions scarce(int64_t host_blocks, int64_t disk_blocks) {
  return {.blocks = 14,
          .block_tokens = 16,
          .max_batch_tokens = 32,
          .max_running = 6,
          .host_blocks = host_blocks,
          .disk_blocks = disk_blocks};
}

// A team, its engine, and the tokenizer that both need.
struct Served {
  explicit Served(const batching::SchedulerOptions& scheduling, int64_t ranks = 1, int64_t poison = -1,
                  int64_t max_losses = 3, PrefillPool* prefill = nullptr)
      : team(*small_model(), ranks, scheduling, poison),
        engine(Engine::start(team.model(), team, data::load_tokenizer(*small_model()).value(),
                             {.scheduling = scheduling, .max_losses = max_losses, .prefill = prefill})
                   .value()) {}

  bool all_blocks_return() const {
    for (auto start = Clock::now(); seconds_since(start) < 1; std::this_thread::yield())
      if (engine->gauges().kv_usage == 0) return true;
    return false;
  }

  ThreadTeam team;
  std::unique_ptr<Engine> engine;
};

// Requests with common and own beginnings, greedy and drawn.
std::vector<CompletionRequest> requests(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  std::vector<CompletionRequest> out;
  for (int64_t i = 0; i < count; ++i) {
    CompletionRequest& request = out.emplace_back();
    request.prompt = {1};
    int64_t story = draw(0, 2), length = draw(1, 70);
    for (int64_t k = 0; k < length; ++k) request.prompt.push_back(300 + (story * 37 + k * k) % 150);
    request.max_tokens = draw(1, 60);
    request.ignore_eos = true;
    request.sampling = {.temperature = i % 2 ? 1.0 : 0.0, .seed = static_cast<uint64_t>(i)};
    request.priority = draw(0, 1);
  }
  return out;
}

std::vector<std::vector<int64_t>> undisturbed(const std::vector<CompletionRequest>& all) {
  Served plain({.blocks = 256, .block_tokens = 16, .max_batch_tokens = 64, .max_running = 16});
  std::vector<std::vector<int64_t>> answers;
  for (const auto& request : all) answers.push_back(Reader::submit(*plain.engine, request)->read(true).tokens);
  return answers;
}

class EngineTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!small_model()) GTEST_SKIP() << "no shared model: set TESSERA_SHARED";
  }
};

TEST_F(EngineTest, KeysAndValuesComeBackFromHostMemoryAndDiskWithTheSameAnswers) {
  auto all = requests(60, 1);
  auto expected = undisturbed(all);
  for (auto [host, disk] : {std::pair(0, 0), {16, 0}, {0, 64}, {12, 80}}) {
    Served served(scarce(host, disk));
    std::vector<std::shared_ptr<Reader>> readers;
    for (const auto& request : all) readers.push_back(Reader::submit(*served.engine, request));
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(readers[i]->read(true).tokens, expected[i]) << i;
    Gauges gauges = served.engine->gauges();
    EXPECT_EQ(gauges.kv_demoted > 50, host + disk > 0);
    EXPECT_EQ(gauges.kv_promoted > 10, host + disk > 0);
    EXPECT_TRUE(served.all_blocks_return());
  }
}

TEST_F(EngineTest, AfterAnyMixOfCancelsLossesAndTiersAnswersAreRightAndAllBlocksReturn) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    auto all = requests(50, seed);
    auto expected = undisturbed(all);
    std::mt19937 random(seed);
    Served served(scarce(seed % 2 * 10, seed % 3 * 20), /*ranks=*/1 + seed % 2, /*poison=*/-1,
                  /*max_losses=*/1000);
    std::vector<std::shared_ptr<Reader>> readers;
    std::vector<bool> cancelled(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      readers.push_back(Reader::submit(*served.engine, all[i]));
      if (random() % 12 == 0) served.team.lose();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
      size_t victim = random() % (2 * readers.size());
      if (victim < readers.size())
        cancelled[victim] = served.engine->cancel(readers[victim]->id()) || cancelled[victim];
    }
    for (size_t i = 0; i < all.size(); ++i) {
      const auto& got = readers[i]->read(true);
      ASSERT_LE(got.tokens.size(), expected[i].size());
      std::vector<int64_t> beginning(expected[i].begin(), expected[i].begin() + std::ssize(got.tokens));
      EXPECT_EQ(got.tokens, beginning) << "request " << i << " of seed " << seed;
      if (!cancelled[i]) {
        EXPECT_EQ(got.tokens.size(), expected[i].size());
        EXPECT_FALSE(got.error) << got.error->message;
      }
    }
    EXPECT_TRUE(served.all_blocks_return()) << "seed " << seed;
    EXPECT_GT(served.engine->health().losses, 0);
    EXPECT_TRUE(served.engine->health().ready) << served.engine->health().reason;
  }
}

TEST_F(EngineTest, PromptsFromWorkersThatComeAndGoGiveTheSameAnswers) {
  int64_t brought = 0;
  for (uint32_t seed = 11; seed <= 14; ++seed) {
    auto all = requests(50, seed);
    auto expected = undisturbed(all);
    std::vector<std::unique_ptr<Team>> teams;
    std::vector<ThreadWorker*> workers;
    for (uint32_t i = 0; i <= seed % 2; ++i) {
      auto worker = std::make_unique<ThreadWorker>(*small_model(), scarce(0, 0));
      workers.push_back(worker.get());
      teams.push_back(std::move(worker));
    }
    PrefillPool pool(std::move(teams), {.least_tokens = 20, .most_tokens = 14 * 16, .most_bytes = 50'000});
    std::mt19937 random(seed);
    Served served(scarce(seed % 3 * 10, 0), 1, -1, 3, &pool);
    std::vector<std::shared_ptr<Reader>> readers;
    std::vector<bool> cancelled(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      readers.push_back(Reader::submit(*served.engine, all[i]));
      if (random() % 12 == 0) workers[random() % workers.size()]->lose();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
      size_t victim = random() % (4 * readers.size());
      if (victim < readers.size())
        cancelled[victim] = served.engine->cancel(readers[victim]->id()) || cancelled[victim];
    }
    for (size_t i = 0; i < all.size(); ++i) {
      const auto& got = readers[i]->read(true);
      if (cancelled[i]) continue;
      EXPECT_EQ(got.tokens, expected[i]) << "request " << i << " of seed " << seed;
      EXPECT_FALSE(got.error) << got.error->message;
    }
    EXPECT_TRUE(served.all_blocks_return()) << "seed " << seed;
    EXPECT_EQ(served.engine->gauges().waiting, 0);
    brought += served.engine->gauges().prefills;
  }
  EXPECT_GT(brought, 20);
}

TEST_F(EngineTest, RequestWhoseStepsAlwaysFailEndsWithAnErrorAndOthersGoOn) {
  constexpr int64_t kPoison = 511;
  auto all = requests(8, 3);
  auto expected = undisturbed(all);
  Served served({.blocks = 128, .block_tokens = 16, .max_batch_tokens = 32, .max_running = 3}, 2, kPoison);
  CompletionRequest bad = all[0];
  bad.prompt.push_back(kPoison);
  std::vector<std::shared_ptr<Reader>> readers;
  for (size_t i = 0; i < 4; ++i) readers.push_back(Reader::submit(*served.engine, all[i]));
  auto poisoned = Reader::submit(*served.engine, bad);
  const auto& end = poisoned->read(true);
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code, ErrorCode::unavailable);
  EXPECT_NE(end.error->message.find("choked on token 511; it is not tried again"), std::string::npos)
      << end.error->message;
  for (size_t i = 4; i < all.size(); ++i) readers.push_back(Reader::submit(*served.engine, all[i]));
  for (size_t i = 4; i < all.size(); ++i) EXPECT_EQ(readers[i]->read(true).tokens, expected[i]);
  EXPECT_TRUE(served.all_blocks_return());
}

// Files of this process may not grow beyond so many bytes, as on a full disk.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  sighandler_t handler_ = SIG_DFL;
};

TEST_F(EngineTest, DiskTierWithoutRoomIsLeftOutFromTheStart) {
  auto all = requests(30, 5);
  auto expected = undisturbed(all);
  FileLimit limit(1000);
  Served served(scarce(8, 64));
  std::vector<std::shared_ptr<Reader>> readers;
  for (const auto& request : all) readers.push_back(Reader::submit(*served.engine, request));
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(readers[i]->read(true).tokens, expected[i]) << i;
  EXPECT_TRUE(served.all_blocks_return());
}

TEST_F(EngineTest, DiskThatFailsUnderLoadCostsNoAnswer) {
  auto all = requests(60, 6);
  auto expected = undisturbed(all);
  for (int64_t ranks : {1, 2}) {
    Served served(scarce(4, 200), ranks);
    std::vector<std::shared_ptr<Reader>> readers;
    for (const auto& request : all) readers.push_back(Reader::submit(*served.engine, request));
    readers[10]->read(true);
    FileLimit limit(1000);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(readers[i]->read(true).tokens, expected[i]) << i;
    EXPECT_TRUE(served.all_blocks_return());
    EXPECT_GT(served.engine->health().retries, 0);
  }
}

}  // namespace
}  // namespace tessera::serve
