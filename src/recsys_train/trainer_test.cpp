#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <numeric>
#include <thread>

#include "recsys_data/random.h"
#include "recsys_train/run.h"

namespace tessera::recsys_train {
namespace {

RunConfig small_run(const std::string& kind = "dnn") {
  RunConfig run;
  run.data = {
      .kind = "synthetic", .seed = 5, .slots = "30,400", .train_rows = 1500, .test_rows = 500, .numbers = 3};
  run.model = {.kind = kind, .bottom = {8}, .top = {16}, .cross_layers = 2};
  run.embedding.dim = 8;
  run.embedding.optimizer.learning_rate = 0.05;
  run.trainer.batch = 32;
  run.trainer.mode = Mode::sync;
  return run;
}

struct Outcome {
  std::vector<float> weights;
  double auc = 0, loss = 0;
  RunResult result;
};
Outcome outcome_of(const RunConfig& run) {
  auto setup = set_up(run);
  EXPECT_TRUE(setup.ok()) << setup.error().message;
  auto result = train(run, **setup, {});
  EXPECT_TRUE(result.ok()) << result.error().message;
  at::Tensor flat = (*setup)->model->parameters().flat_values();
  const float* values = flat.data_ptr<float>();
  return {{values, values + flat.numel()}, result->test().auc, result->mean_loss, *result};
}

class OneThread : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};
using TrainerTest = OneThread;
using ModelTest = OneThread;

TEST_F(TrainerTest, PipelinedSyncGivesTheBitsOfOneThreadForAnyNumberOfServers) {
  RunConfig run = small_run();
  run.trainer.deterministic = true;
  Outcome one = outcome_of(run);
  run.trainer.deterministic = false;
  for (int64_t servers : {1, 2, 5}) {
    run.servers = servers;
    Outcome other = outcome_of(run);
    EXPECT_EQ(one.weights, other.weights) << servers;
    EXPECT_EQ(one.auc, other.auc) << servers;
  }
}

TEST_F(TrainerTest, HybridNeverExceedsItsBoundAndSeesStaleness) {
  RunConfig run = small_run();
  run.trainer.mode = Mode::hybrid;
  for (int64_t bound : {0, 1, 7}) {
    run.trainer.staleness = bound;
    Outcome outcome = outcome_of(run);
    const GroupResult& group = outcome.result.groups[0];
    EXPECT_LE(static_cast<int64_t>(group.staleness.size()), bound + 1);
    EXPECT_EQ(std::accumulate(group.staleness.begin(), group.staleness.end(), int64_t{0}),
              outcome.result.steps);
  }
}

TEST_F(TrainerTest, DeterministicStalenessIsTheBoundOfEachGroup) {
  RunConfig run = small_run();
  run.trainer.mode = Mode::hybrid;
  run.trainer.staleness = 6;
  run.trainer.staleness_warmup = 0;
  run.trainer.deterministic = true;
  run.groups = {{"hot", {{"slots", {"C1"}}, {"staleness", 2}}}};
  Outcome first = outcome_of(run), again = outcome_of(run);
  EXPECT_EQ(first.weights, again.weights);
  const auto& groups = first.result.groups;
  ASSERT_EQ(groups.size(), 2u);
  const int64_t steps = first.result.steps;
  for (size_t g = 0; g < 2; ++g) {
    int64_t bound = g == 0 ? 6 : 2;
    ASSERT_EQ(static_cast<int64_t>(groups[g].staleness.size()), bound + 1) << g;
    EXPECT_EQ(groups[g].staleness.back(), steps - bound) << g;  // the first ones see 0, 1, ...
  }
}

TEST_F(TrainerTest, TrainingReachesWhatTheTruthAllows) {
  RunConfig run = small_run();
  run.data.train_rows = 30000;
  run.data.test_rows = 4000;
  run.data.signal = 2;
  run.dense = {.kind = "adam", .learning_rate = 0.003};
  run.embedding.optimizer.learning_rate = 0.1;
  Outcome outcome = outcome_of(run);
  EXPECT_GT(outcome.auc, 0.9 * outcome.result.best_auc);
  EXPECT_GT(outcome.result.best_auc, 0.75);
}

TEST_F(TrainerTest, AMalformedRowEndsThePipelineWithItsError) {
  class Bad : public recsys_data::Source {
   public:
    explicit Bad(std::unique_ptr<recsys_data::Source> good) : good_(std::move(good)) {}
    const recsys_data::Features& features() const override { return good_->features(); }
    int64_t rows() const override { return 0; }
    Status start_epoch(int64_t epoch) override { return good_->start_epoch(epoch); }
    Status next(int64_t rows, recsys_data::Batch& batch) override {
      return ++calls_ == 9 ? Status(invalid("file:9: column 1")) : good_->next(rows, batch);
    }

   private:
    std::unique_ptr<recsys_data::Source> good_;
    int calls_ = 0;
  };
  for (bool deterministic : {false, true}) {
    RunConfig run = small_run();
    run.trainer.deterministic = deterministic;
    auto setup = set_up(run);
    ASSERT_TRUE(setup.ok());
    auto& train_rows = (*setup)->data->train;
    train_rows = std::make_unique<Bad>(std::move(train_rows));
    auto rows = (*setup)->trainer->epoch();
    ASSERT_FALSE(rows.ok());
    EXPECT_EQ(rows.error().message, "file:9: column 1");
  }
}

// Weights after one epoch of trainers that are threads, which share the servers.
std::vector<float> weights_of_trainers(const RunConfig& run, int64_t trainers, int64_t num_servers) {
  auto groups = make_thread_groups(trainers);
  auto splits = *recsys_data::open_data(run.data);
  auto facts = facts_of(splits);
  auto plan = *plan_embeddings(run, facts.features);
  auto servers = *make_local_servers(plan.store_groups, num_servers, serving_options(run));
  auto bounds = staleness_bounds(run.trainer, plan.lookup.num_groups);
  LocalLoader loader(splits, 32);
  std::vector<std::vector<float>> weights(groups.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < groups.size(); ++rank)
    threads.emplace_back([&, rank] {
      auto worker = std::make_unique<LocalWorker>(loader, *servers, plan.lookup, bounds);
      TrainerSeat seat{.rank = static_cast<int64_t>(rank), .trainers = trainers};
      seat.exchange = exchange_over(*groups[rank]);
      auto setup = set_up_trainer(run, facts, std::move(worker), seat);
      ASSERT_TRUE(setup.ok());
      auto rows = (*setup)->trainer->epoch();
      ASSERT_TRUE(rows.ok()) << rows.error().message;
      at::Tensor flat = (*setup)->model->parameters().flat_values();
      weights[rank].assign(flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel());
    });
  for (auto& thread : threads) thread.join();
  for (const auto& other : weights) EXPECT_EQ(weights[0], other);
  return weights[0];
}

TEST_F(TrainerTest, PartsOfAStepGiveTheSameBitsForAnyNumberOfTrainersAndServers) {
  RunConfig run = small_run("wide-deep");
  run.trainer.parts = 4;
  run.trainer.batch = 16;
  for (bool deterministic : {false, true}) {
    run.trainer.deterministic = deterministic;
    run.trainer.mode = deterministic ? Mode::hybrid : Mode::sync;  // with staleness 0 and with 10
    std::vector<float> one = weights_of_trainers(run, 1, 1);
    EXPECT_EQ(one, weights_of_trainers(run, 2, 3)) << deterministic;
    EXPECT_EQ(one, weights_of_trainers(run, 4, 2)) << deterministic;
  }
}

struct Trained {
  std::vector<float> weights;
  double auc = 0;
};
// One epoch of a trainer that ends after each of `deaths` (steps), before it updates the rows of that step, and
// of those who take its place: each has a new worker, the memory file is what is left of the one before.
Trained with_deaths(const RunConfig& run, const std::string& memory, std::vector<int64_t> deaths) {
  auto splits = *recsys_data::open_data(run.data);
  auto facts = facts_of(splits);
  auto plan = *plan_embeddings(run, facts.features);
  auto servers = *make_local_servers(plan.store_groups, 2, serving_options(run));
  auto bounds = staleness_bounds(run.trainer, plan.lookup.num_groups);
  LocalLoader loader(splits, 0);
  deaths.push_back(-1);
  for (int64_t death : deaths) {
    auto worker = std::make_unique<LocalWorker>(loader, *servers, plan.lookup, bounds);
    auto setup = *set_up_trainer(run, facts, std::move(worker), {.memory = memory});
    setup->trainer->on_dense_step = [death](const Standing& at) {
      return at.step == death ? Status(make_error(ErrorCode::aborted, "died")) : Status();
    };
    auto rows = setup->trainer->epoch();
    EXPECT_EQ(rows.ok(), death < 0);
    if (death >= 0) continue;
    EXPECT_EQ(setup->trainer->standing().rows, run.data.train_rows);
    at::Tensor flat = setup->model->parameters().flat_values();
    const float* values = flat.data_ptr<float>();
    return {{values, values + flat.numel()}, setup->trainer->evaluate()->auc};
  }
  return {};
}

TEST_F(TrainerTest, WhoTakesADeadTrainersPlaceReachesTheBitsOfAnUndisturbedRun) {
  std::string folder = ::testing::TempDir() + "trainer_memory_" + std::to_string(::getpid());
  RunConfig run = small_run("wide-deep");
  for (bool deterministic : {false, true}) {
    run.trainer.deterministic = deterministic;
    run.trainer.mode = deterministic ? Mode::hybrid : Mode::sync;  // with staleness 10 and with 0
    std::string path = folder + (deterministic ? "a" : "b");
    Trained whole = with_deaths(run, "", {});
    Trained mended = with_deaths(run, path, {1, 3, 20, 21, 40});
    EXPECT_EQ(whole.weights, mended.weights) << deterministic;
    EXPECT_EQ(whole.auc, mended.auc) << deterministic;
    std::remove(path.c_str());
  }
}

// A step of B rows in two parts is one of 2 B rows, up to the rounding of sums.
TEST_F(TrainerTest, PartsTakeTheDenseStepsOfOneLargerBatch) {
  RunConfig run = small_run();
  run.data.train_rows = 1536;
  run.embedding.optimizer = {.kind = recsys::OptimizerOptions::Kind::sgd,
                             .learning_rate = 1e-30};  // dense only
  run.dense.learning_rate = 0.05;
  run.trainer.parts = 2;
  std::vector<float> parts = outcome_of(run).weights;
  run.trainer.parts = 1;
  run.trainer.batch = 64;
  std::vector<float> whole = outcome_of(run).weights;
  double largest = 0;
  for (size_t i = 0; i < parts.size(); ++i) largest = std::max(largest, std::abs(double(whole[i]) - parts[i]));
  EXPECT_LT(largest, 1e-5);
}

TEST(StalenessGate, ThreadsNeverSeeMoreThanTheBound) {
  StalenessGate gate({{3}});
  std::thread updater([&] {
    for (int i = 0; i < 2000; ++i) {
      while (gate.outstanding(0) == 0) std::this_thread::yield();
      gate.applied(0);
    }
  });
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(gate.enter(0).ok());
  updater.join();
  auto histogram = gate.histogram(0);
  EXPECT_LE(histogram.size(), 4u);
  EXPECT_EQ(std::accumulate(histogram.begin(), histogram.end(), int64_t{0}), 2000);
}

TEST(StalenessGate, AbortEndsAWaitWithItsError) {
  StalenessGate gate({{0}});
  ASSERT_TRUE(gate.enter(0).ok());
  std::thread other([&] { gate.abort(invalid("lost a server")); });
  Status status = gate.enter(0);  // would wait for ever
  other.join();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "lost a server");
}

double loss_of(DenseModel& model, const at::Tensor& numeric, const at::Tensor& pooled, const at::Tensor& wide,
               const at::Tensor& labels) {
  at::Tensor logits = model.forward(numeric, pooled, wide);
  std::span<const float> values(logits.data_ptr<float>(), static_cast<size_t>(logits.numel()));
  return quality_of(values, {labels.data_ptr<float>(), values.size()}).log_loss;
}

at::Tensor random_tensor(at::IntArrayRef shape, recsys_data::Random& random) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i)
    tensor.data_ptr<float>()[i] = static_cast<float>(random.normal());
  return tensor;
}

// Central differences along a direction between the gradient and a random one. The step is small, so that few
// ReLUs switch; losses of about 0.7 from float32 logits are good to 1e-7 or so, which leaves 1e-7 / step =
// 2e-5.
void expect_slope(const std::string& what, at::Tensor values, const at::Tensor& gradient,
                  const std::function<double()>& loss, recsys_data::Random& random) {
  const double step = 5e-3;
  at::Tensor noise = random_tensor(values.sizes(), random), before = values.clone();
  at::Tensor direction = gradient / gradient.norm() + noise / noise.norm();
  direction.div_(direction.norm());
  values.copy_(before).add_(direction, step);
  double above = loss();
  values.copy_(before).add_(direction, -step);
  double below = loss();
  values.copy_(before);
  double slope = (gradient * direction).sum().item<double>();
  EXPECT_NEAR(slope, (above - below) / (2 * step), 1e-4 + 0.02 * slope) << what;
  EXPECT_GT(slope, 0.01) << what;
}

TEST_F(ModelTest, GradientsEqualFiniteDifferencesForEveryKind) {
  const int64_t rows = 64, numbers = 3, slots = 4, dim = 8;
  for (const char* kind : {"dnn", "dlrm", "dcnv2", "deepfm", "wide-deep"}) {
    recsys_data::Random random(11);
    ModelOptions options{.kind = kind, .bottom = {dim}, .top = {16}, .cross_layers = 2, .cross_rank = 3};
    auto model = DenseModel::create(options, numbers, slots, dim, 1);
    ASSERT_TRUE(model.ok()) << model.error().message;
    at::Tensor numeric = random_tensor({rows, numbers}, random),
               pooled = random_tensor({rows, slots, dim}, random);
    at::Tensor wide = random_tensor({rows, slots}, random), labels = random_tensor({rows}, random);
    for (int64_t i = 0; i < rows; ++i) labels.data_ptr<float>()[i] = i % 3 == 0 ? 1.f : 0.f;
    auto loss = [&] { return loss_of(**model, numeric, pooled, wide, labels); };
    (*model)->forward(numeric, pooled, wide);
    auto gradients = (*model)->backward(labels);
    EXPECT_NEAR(gradients.loss, loss(), 1e-6) << kind;
    expect_slope(std::string(kind) + " pooled", pooled, gradients.pooled, loss, random);
    if (has_linear_part(kind)) expect_slope(std::string(kind) + " wide", wide, gradients.wide, loss, random);
    at::Tensor flat = (*model)->parameters().flat_gradients().clone();
    expect_slope(std::string(kind) + " weights", (*model)->parameters().flat_values(), flat, loss, random);
  }
}

TEST_F(ModelTest, PairsOfVectorsEqualTheirDefinition) {
  for (auto [vectors, dim] : {std::pair<int64_t, int64_t>{27, 16}, {5, 8}, {40, 64}, {9, 5}}) {
    recsys_data::Random random(3);
    const int64_t rows = 300;
    DotInteraction dots(vectors, dim);
    at::Tensor x = random_tensor({rows, dim}, random), others = random_tensor({rows, vectors - 1, dim}, random);
    at::Tensor out = dots.forward(x, others);
    ASSERT_EQ(out.size(1), dots.outputs());
    at::Tensor z = at::cat({x.unsqueeze(1), others}, 1), expected = at::bmm(z, z.transpose(1, 2));
    EXPECT_TRUE(out.narrow(1, 0, dim).equal(x));
    at::Tensor gradient = random_tensor(out.sizes(), random), square = at::zeros_like(expected);
    for (int64_t i = 1, pair = dim; i < vectors; ++i)
      for (int64_t j = 0; j < i; ++j, ++pair) {
        double worst = (out.select(1, pair) - expected.select(1, i).select(1, j)).abs().max().item<double>();
        ASSERT_LT(worst, 1e-4) << i << " " << j;
        square.select(1, i).select(1, j).copy_(gradient.select(1, pair));
      }
    auto to = dots.backward(gradient);
    at::Tensor all = at::bmm(square + square.transpose(1, 2), z);
    EXPECT_LT((to.others - all.narrow(1, 1, vectors - 1)).abs().max().item<double>(), 1e-4);
    EXPECT_LT((to.x - all.select(1, 0) - gradient.narrow(1, 0, dim)).abs().max().item<double>(), 1e-4);
  }
}

TEST_F(ModelTest, MistakesAreReadable) {
  auto typo = DenseModel::create({.kind = "dlmr"}, 3, 4, 8, 1);
  ASSERT_FALSE(typo.ok());
  EXPECT_NE(typo.error().message.find("did you mean 'dlrm'"), std::string::npos);
  auto bottom = DenseModel::create({.kind = "dlrm", .bottom = {16}}, 3, 4, 8, 1);
  ASSERT_FALSE(bottom.ok());
  EXPECT_NE(bottom.error().message.find("embedding.dim=8"), std::string::npos);
}

}  // namespace
}  // namespace tessera::recsys_train
