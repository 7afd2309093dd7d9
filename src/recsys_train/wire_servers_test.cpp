#include "recsys_train/wire_servers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "recsys_train/cached_servers.h"
#include "recsys_train/run.h"

namespace tessera::recsys_train {
namespace {

// Rows of two numbers: how many steps they hold, and their id.
class CountingServers : public EmbeddingServers {
 public:
  Status get(int64_t, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* steps) override {
    EXPECT_GE(applied, options.needs_step);
    for (size_t i = 0; i < ids.size(); ++i) {
      rows[2 * i] = static_cast<float>(applied);
      rows[2 * i + 1] = static_cast<float>(ids[i]);
    }
    asked += static_cast<int64_t>(ids.size());
    if (steps != nullptr) *steps = applied;
    return {};
  }
  Status put(int64_t, std::span<const uint64_t>, std::span<const float>, const recsys::PutOptions&) override {
    ++applied;
    return {};
  }
  int64_t num_servers() const override { return 1; }
  Result<recsys::GroupStats> stats(int64_t) override { return recsys::GroupStats{}; }
  Result<uint64_t> digest(int64_t, int64_t) override { return uint64_t{0}; }
  Status begin_save(const std::string&, int64_t, bool) override { return {}; }
  Result<int64_t> save_version(const std::string&, const VersionRequest&) override { return num_servers(); }
  Result<std::vector<std::vector<std::string>>> finish_save(int64_t) override {
    return std::vector<std::vector<std::string>>{};
  }

  int64_t applied = 0, asked = 0;
};

TEST(CachedServersTest, NoRowIsOlderThanTheBound) {
  for (int64_t bound : {0, 1, 5, 20}) {
    CountingServers servers;
    CachedServers cached(servers, {.rows = 300, .dims = {2}});
    std::mt19937_64 random(1);
    std::vector<uint64_t> ids(100);
    std::vector<float> rows(200);
    for (int64_t step = 0; step < 400; ++step) {
      // At most `bound` steps owe their gradients, as the trainer's gate sees to.
      while (servers.applied < step && (step - servers.applied > bound || random() % 4 != 0))
        ASSERT_TRUE(cached.put(0, ids, rows, {}));
      for (uint64_t& id : ids)
        id = static_cast<uint64_t>(std::pow(2000.0, static_cast<double>(random() % 1000) / 1000));
      int64_t needs = std::max<int64_t>(0, step - bound);
      ASSERT_TRUE(cached.get(0, ids, rows, {.needs_step = needs}, nullptr));
      for (size_t i = 0; i < ids.size(); ++i) {
        ASSERT_GE(rows[2 * i], static_cast<float>(needs)) << "step " << step << ", bound " << bound;
        ASSERT_EQ(rows[2 * i + 1], static_cast<float>(ids[i]));
      }
    }
    EXPECT_EQ(cached.traffic().cache.gets - cached.traffic().cache.hits, servers.asked);
    if (bound == 0) {
      EXPECT_LT(cached.traffic().cache.hits,
                cached.traffic().cache.gets / 3);  // only what one batch asks for twice
    }
    if (bound == 20) {
      EXPECT_GT(cached.traffic().cache.hits, cached.traffic().cache.gets / 2);
    }
  }
}

TEST(CachedServersTest, ReadsGoThrough) {
  CountingServers servers;
  CachedServers cached(servers, {.rows = 300, .dims = {2}});
  std::vector<uint64_t> ids = {7};
  std::vector<float> rows(2);
  ASSERT_TRUE(cached.get(0, ids, rows, {}, nullptr));
  servers.applied = 3;
  ASSERT_TRUE(cached.get(0, ids, rows, {.access = recsys::Access::read}, nullptr));
  EXPECT_EQ(rows[0], 3);
}

TEST(WireServersTest, Float32ChangesNoBitAndInt8AThird) {
  recsys::GroupOptions group{.dim = 16};
  group.optimizer = {.kind = recsys::OptimizerOptions::Kind::sgd, .learning_rate = 0.5};
  std::mt19937_64 random(2);
  std::vector<uint64_t> ids(500);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = (random() % 100000) * 512 + i;
  std::vector<float> gradients(ids.size() * 16);
  for (float& g : gradients) g = static_cast<float>(static_cast<int64_t>(random() % 2001) - 1000) * 1e-4f;
  auto rows_over = [&](const WireConfig& config, double* ratio) {
    auto servers = *make_local_servers({group}, 2);
    auto wire = make_wire_servers(*servers, config, {16});
    std::vector<float> rows(gradients.size());
    EXPECT_TRUE(wire->get(0, ids, rows, {}));
    EXPECT_TRUE(wire->put(0, ids, gradients, {}));
    EXPECT_TRUE(wire->get(0, ids, rows, {}));
    *ratio =
        static_cast<double>(wire->traffic().wire.raw_bytes) / static_cast<double>(wire->traffic().wire.bytes);
    return rows;
  };
  double ratio = 0, few = 0;
  auto servers = *make_local_servers({group}, 2);
  std::vector<float> expected(gradients.size());
  ASSERT_TRUE(servers->get(0, ids, expected, {}));
  ASSERT_TRUE(servers->put(0, ids, gradients, {}));
  ASSERT_TRUE(servers->get(0, ids, expected, {}));
  EXPECT_EQ(rows_over({}, &ratio), expected);
  auto rounded = rows_over({.rows = recsys::RowType::i8, .gradients = recsys::RowType::i8}, &few);
  EXPECT_GT(few, 3);
  float worst = 0;
  for (size_t i = 0; i < rounded.size(); ++i) worst = std::max(worst, std::abs(rounded[i] - expected[i]));
  EXPECT_GT(worst, 0);
  EXPECT_LT(worst, 2e-3);
}

// The whole way: training over the wire and with a cache comes to the same quality.
TEST(WireServersTest, TrainingOverTheWireLosesNoQuality) {
  auto auc_of = [](const std::vector<std::string>& more, RunResult* out) {
    std::vector<std::string> options = {"data.kind=synthetic",
                                        "data.slots=400,5000,80",
                                        "data.numbers=3",
                                        "data.train_rows=40000",
                                        "data.test_rows=20000",
                                        "data.signal=2",
                                        "model.top=16",
                                        "embedding.dim=8",
                                        "embedding.learning_rate=0.05",
                                        "dense.learning_rate=0.05",
                                        "train.batch=128"};
    options.insert(options.end(), more.begin(), more.end());
    RunConfig run = *load_run_config("", options);
    auto setup = *set_up(run);
    *out = *train(run, *setup, {});
    return out->test().auc;
  };
  RunResult plain, packed;
  double whole = auc_of({"train.deterministic=true", "train.staleness=0", "train.mode=sync"}, &plain);
  double few = auc_of({"train.deterministic=true", "train.staleness=0", "train.mode=sync", "wire.compress=true",
                       "wire.rows=int8", "wire.gradients=int8"},
                      &packed);
  EXPECT_NEAR(few, whole, 0.002);
  EXPECT_GT(packed.traffic.wire.raw_bytes, 2 * packed.traffic.wire.bytes);
  double cached = auc_of({"wire.cache_rows=10000", "train.staleness=10"}, &packed);
  EXPECT_NEAR(cached, whole, 0.01);
  EXPECT_GT(packed.traffic.cache.hits, packed.traffic.cache.gets / 4);
}

}  // namespace
}  // namespace tessera::recsys_train
