#include <gtest/gtest.h>

#include <cmath>

#include "plan/recommenders.h"
#include "plan/recsys/search.h"

namespace tessera::plan::recsys {
namespace {

// Oracle: the sums themselves, term by term.
TEST(Zipf, EqualsSumsTermByTerm) {
  for (double s : {0.0, 0.8, 1.0, 1.05, 1.2}) {
    for (double n : {1.0, 7.0, 300.0, 200000.0}) {
      Zipf zipf(n, s);
      double total = 0, top = 0, distinct = 0, repeat = 0;
      for (double i = 1; i <= n; ++i) total += std::pow(i, -s);
      for (double i = 1; i <= n; ++i) {
        double p = std::pow(i, -s) / total, hit = 1 - std::pow(1 - p, 5000);
        if (i <= n / 10) top += p;
        if (i > 50) distinct += hit;
        repeat += p * hit;
      }
      // Sums are promised to 1e-4.
      EXPECT_NEAR(harmonic(n, s) / total, 1, 1e-4) << s << " " << n;
      EXPECT_NEAR(zipf.top_share(n / 10), top, 1e-4) << s << " " << n;
      EXPECT_NEAR(zipf.distinct(5000, 50), distinct, 1e-4 * (1 + distinct)) << s << " " << n;
      EXPECT_NEAR(zipf.repeat_share(5000), repeat, 1e-4) << s << " " << n;
    }
  }
}

TEST(Zipf, HarmonicNumbersOfHugeCountsAreKnown) {
  constexpr double kEuler = 0.57721566490153286;
  EXPECT_NEAR(harmonic(1e11, 1), std::log(1e11) + kEuler, 1e-3);
  EXPECT_NEAR(harmonic(1e11, 2), M_PI * M_PI / 6, 1e-4);
  EXPECT_NEAR(Zipf(1e11, 0).distinct(1e9), 1e9 * (1 - 0.005), 1e6);  // 1 - e^-x = x - x^2 / 2
}

// Persia's capacity test: 64 A100, 100 workers, 30 servers of 12 TB.
Request persia(double trillions) {
  Request request;
  request.work.model = *find_recommender("persia-100t");
  for (EmbeddingTable& table : request.work.model.tables) table.rows *= trillions / 100;
  request.work.zipf = 0;  // made-up ids; their popularity is not published
  request.work.samples = 1e10;
  request.pools = *load_pools("persia-gcp", 0);
  request.engine = *engine("persia");
  return request;
}

double rate(const Request& request, const std::string& layout) {
  Request one = request;
  one.layout = *parse_layout(layout);
  return search(one)->ranked.at(0).step.samples_per_s;
}

// The batch is not published; 2,048 is assumed. The engine's one calibrated cost comes from a single V100.
const char* kHybrid = "servers=30,workers=100,trainers=64,batch=2048,staleness=16";
const char* kSync = "servers=30,workers=100,trainers=64,batch=2048,staleness=1";
const char* kAsync = "servers=30,workers=100,trainers=64,batch=2048,staleness=16,dense=async";

// Published (figures read by pixel): 1.79, 1.85, 1.89, 1.83, 1.91 M samples/s from 6.25 to 100 T.
TEST(Persia, ThroughputIsPublishedAndFlatFrom6To100Trillion) {
  const std::pair<double, double> published[] = {
      {6.25, 1.79e6}, {12.5, 1.85e6}, {25, 1.89e6}, {50, 1.83e6}, {100, 1.91e6}};
  double first = rate(persia(6.25), kHybrid);
  for (const auto& [trillions, samples] : published) {
    double ours = rate(persia(trillions), kHybrid);
    EXPECT_NEAR(ours / samples, 1, 0.1) << trillions;
    EXPECT_NEAR(ours / first, 1, 0.05) << trillions;
  }
}

TEST(Persia, RatiosOfSynchronousAndAsynchronousTrainingArePublished) {
  double hybrid = rate(persia(100), kHybrid);
  EXPECT_NEAR(hybrid / rate(persia(100), kSync) / 2.6, 1, 0.1);
  EXPECT_NEAR(hybrid / rate(persia(100), kAsync) / 0.89, 1, 0.1);
  EXPECT_NEAR(rate(persia(100), kAsync) / 2.16e6, 1, 0.1);
}

// 100 T float32 values are 400 TB, more than the 360 TB installed: they were addressable, not resident.
TEST(Persia, AllOf100TrillionResidentDoNotFitAndTouchedRowsDo) {
  Request request = persia(100);
  request.layout = *parse_layout(kHybrid);
  EXPECT_FALSE(search(request)->ranked.empty());
  request.work.samples = 0;
  Outcome outcome = *search(request);
  ASSERT_TRUE(outcome.ranked.empty());
  ASSERT_EQ(outcome.infeasible.size(), 1u);
  EXPECT_GT(outcome.infeasible[0].needed, outcome.infeasible[0].available);
  EXPECT_NEAR(outcome.storage.virtual_rows, 7.8125e11, 1e8);
}

// The row that trainer_sample_s was calibrated on: Criteo on one V100, 27.6 k samples/s.
TEST(Persia, TheCalibrationRowComesBack) {
  Request request;
  request.work.model = {.name = "criteo", .dense_features = 13, .top = {4096, 2048, 1024, 512, 256, 1}};
  for (int table = 0; table < 26; ++table) request.work.model.tables.push_back({1.3e6, 16, 1});
  request.pools = *parse_pools(R"(
    name = "tutorial"
    [[pool]]
    role = "trainers"
    cluster = "v100"
    devices_per_host = 8
    network_bytes_per_s = 12.5e9
    [[pool]]
    role = "workers"
    hosts = 8
    cores = 64
    memory_bytes = 256e9
    network_bytes_per_s = 1.25e9
    [[pool]]
    role = "servers"
    hosts = 8
    cores = 64
    memory_bytes = 256e9
    network_bytes_per_s = 1.25e9)",
                               "tutorial.toml");
  request.engine = *engine("persia");
  EXPECT_NEAR(rate(request, "servers=8,workers=8,trainers=1,batch=2048,staleness=10") / 27.6e3, 1, 0.03);
}

TEST(RecsysSearch, NoLayoutOfASmallSpaceBeatsTheBest) {
  Request request;
  request.work.model = *find_recommender("dlrm");
  request.pools = *load_pools("h100", 8);
  request.pools.servers.hosts = request.pools.workers.hosts = 3;
  request.engine = *engine("tessera");
  double best = search(request)->ranked.at(0).step.samples_per_s;
  for (int servers = 1; servers <= 3; ++servers)
    for (int workers = 1; workers <= 3; ++workers)
      for (const char* rest :
           {"trainers=8,batch=8192,staleness=16,wire=1", "trainers=8,batch=4096,staleness=8,wire=2,cache=0.5",
            "trainers=4,batch=8192,staleness=16,wire=1,sharding=tables"})
        EXPECT_LE(rate(request, fmt::format("servers={},workers={},{}", servers, workers, rest)), best * 1.001);
}

TEST(RecsysStep, MoreStalenessNeverSlowsAndTheBoundIsNamed) {
  double last = 0;
  Request few = persia(100);
  few.work.samples = 1e9;
  for (int staleness : {1, 2, 4, 8, 16}) {
    double now = rate(few, fmt::format("servers=3,workers=4,trainers=64,batch=512,staleness={}", staleness));
    EXPECT_GE(now, last);
    last = now;
  }
  Request request = persia(100);
  request.layout = *parse_layout("servers=30,workers=1,trainers=64,batch=2048,staleness=16");
  EXPECT_EQ(search(request)->ranked.at(0).step.bound_by, "network of workers");
}

TEST(RecsysStep, ACacheTakesTheShareOfThePopularIds) {
  Work work{.model = {.tables = {{1e6, 32, 1}}}, .zipf = 1.05};
  auto tables = popularity(work);
  BatchIds cached = batch_ids(work, tables, 4096, 1e5 * (32 * 4 + 8));
  EXPECT_NEAR(cached.cache_hit_share, harmonic(1e5, 1.05) / harmonic(1e6, 1.05), 1e-6);
  EXPECT_LT(cached.from_servers, batch_ids(work, tables, 4096, 0).from_servers / 2);
}

// By hand: 26 tables of 1e5 rows of 32 float32 with Adagrad's state and 16 bytes of index, halved over two
// devices.
TEST(RecsysTrainer, MemoryOfADeviceIsTheOneDoneByHand) {
  Request request;
  request.work.model = {.name = "mine", .dense_features = 8, .top = {64, 1}};
  for (int table = 0; table < 26; ++table) request.work.model.tables.push_back({1e5, 32, 1});
  request.pools = *load_pools("h100", 8);
  request.engine = *engine("tessera");
  request.layout = *parse_layout("placement=trainers,trainers=2,batch=1024,staleness=1,wire=4");
  Step step = search(request)->ranked.at(0).step;
  double width = 26 * 32 + 8;  // concatenated
  EXPECT_DOUBLE_EQ(step.trainer.dense, 16 * (width * 64 + 64 + 64 + 1));
  EXPECT_DOUBLE_EQ(step.trainer.activations, 8 * 1024 * (8 + width + 64 + 1));
  EXPECT_DOUBLE_EQ(step.trainer.vectors, 8.0 * 1024 * 26 * 32);
  EXPECT_DOUBLE_EQ(step.trainer.tables, 26e5 * (2 * 32 * 4 + 16) / 2);
  EXPECT_EQ(step.server_bytes, 0);
}

TEST(RecsysTrainer, TablesThatDoNotFitTheDevicesAreRefusedWithWhatIsMissing) {
  Request request;
  request.work.model = *find_recommender("dlrm");
  request.pools = *load_pools("h100", 8);
  request.engine = *engine("tessera");
  request.layout = *parse_layout("placement=trainers,trainers=1,batch=2048,staleness=1");
  Outcome outcome = *search(request);
  ASSERT_TRUE(outcome.ranked.empty());
  ASSERT_EQ(outcome.infeasible.size(), 1u);
  EXPECT_NEAR(outcome.infeasible[0].available, 0.9 * 80, 6);
  EXPECT_GT(outcome.infeasible[0].needed, outcome.infeasible[0].available);
  request.layout->trainers = 8, request.work.state_bytes_per_row = 4, request.work.element_bytes = 2;
  EXPECT_FALSE(search(request)->ranked.empty());
}

// Rows on devices: no servers, no workers, and look-ups that take the part of the memory's rate that rows get.
TEST(RecsysTrainer, RowsOnDevicesCostNoHostsAndTheirLookUpsFollowTheMemory) {
  Request request;
  request.work.model = {.name = "mine", .dense_features = 8, .top = {64, 1}};
  for (int table = 0; table < 8; ++table) request.work.model.tables.push_back({1e7, 64, 20});
  request.pools = *load_pools("h100", 8);
  request.engine = *engine("tessera");
  request.layout = *parse_layout("placement=trainers,trainers=8,batch=4096,staleness=1,sharding=tables");
  Step step = search(request)->ranked.at(0).step;
  EXPECT_DOUBLE_EQ(step.usd_per_hour, request.pools.trainers.price_usd_per_hour);
  request.pools.trainers.device_bytes_per_s *= 2;
  Step faster = search(request)->ranked.at(0).step;
  EXPECT_DOUBLE_EQ(step.parts[1].seconds, 2 * faster.parts[1].seconds);
  EXPECT_GT(faster.samples_per_s, step.samples_per_s);
  request.layout->trainers = 1;
  EXPECT_EQ(search(request)->ranked.at(0).step.parts[2].seconds, 0) << "nobody to exchange with";
}

TEST(RecsysInput, MistakesAreOneReadableLine) {
  auto message = [](const auto& result) { return result.ok() ? std::string() : result.error().message; };
  EXPECT_NE(message(load_pools("persia-gc", 0)).find("no GPU cluster"), std::string::npos);
  EXPECT_NE(message(load_pools("persia-gcp", 65)).find("64 devices"), std::string::npos);
  EXPECT_NE(message(engine("persa")).find("did you mean 'persia'"), std::string::npos);
  EXPECT_NE(message(parse_layout("worker=3")).find("did you mean 'workers'"), std::string::npos);
  EXPECT_NE(
      message(parse_pools("[[pool]]\nrole = \"server\"\ncores = 1\nmemory_bytes = 1\nnetwork_bytes_per_s = 1\n",
                          "x.toml"))
          .find("did you mean 'servers'"),
      std::string::npos);
  EXPECT_NE(
      message(parse_pools("[[pool]]\nrole = \"servers\"\ncore = 1\n", "x.toml")).find("did you mean 'cores'"),
      std::string::npos);
  Request request = persia(100);
  request.layout = *parse_layout("staleness=1,cache=0.5");
  EXPECT_NE(message(search(request)).find("staleness=1"), std::string::npos);
  request.layout = *parse_layout("placement=trainers,staleness=4,cache=0.5");
  EXPECT_NE(message(search(request)).find("no workers"), std::string::npos);
}

}  // namespace
}  // namespace tessera::plan::recsys
