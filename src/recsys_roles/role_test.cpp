#include "recsys_roles/role.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace tessera::recsys_roles {
namespace {

using namespace recsys_train;

RunConfig small_run() {
  RunConfig run;
  run.data = {
      .kind = "synthetic", .seed = 5, .slots = "30,400", .train_rows = 800, .test_rows = 300, .numbers = 3};
  run.model = {.kind = "wide-deep", .bottom = {8}, .top = {16}, .cross_layers = 2};
  run.embedding.dim = 8;
  run.embedding.optimizer.learning_rate = 0.05;
  run.trainer.batch = 16;
  run.trainer.parts = 2;
  run.epochs = 2;
  return run;
}

struct Outcome {
  std::string weights, rows;
  double auc = 0;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome in_one_process(const RunConfig& run) {
  auto setup = *set_up(run);
  auto result = *train(run, *setup, {});
  EXPECT_TRUE(add_hashes(*setup, result).ok());
  return {result.weights_hash, result.rows_hash, result.test().auc};
}

// Roles as threads, which meet as processes do.
Outcome in_roles(const RunConfig& run) {
  Place place;
  place.meeting.store = make_memory_store();
  place.meeting.token = "secret";
  place.meeting.patience_s = 30;
  std::vector<std::unique_ptr<ServingRole>> serving;
  place.promotion = "never";
  for (auto kind : {RoleName::loader, RoleName::server, RoleName::replica, RoleName::worker})
    for (const RoleName& role : all_roles(run))
      if (role.kind == kind) serving.push_back(*serve_role(run, role, place));
  std::vector<Outcome> outcomes(static_cast<size_t>(run.trainers));
  std::vector<std::unique_ptr<TrainerRole>> trainers(outcomes.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < outcomes.size(); ++rank)
    threads.emplace_back([&, rank] {
      auto role = set_up_trainer_role(run, static_cast<int64_t>(rank), place);
      ASSERT_TRUE(role.ok()) << role.error().message;
      trainers[rank] = std::move(*role);
      auto result = train(run, *trainers[rank]->setup, {});
      ASSERT_TRUE(result.ok()) << result.error().message;
      ASSERT_TRUE(add_hashes(*trainers[rank]->setup, *result).ok());
      outcomes[rank] = {result->weights_hash, result->rows_hash, result->test().auc};
    });
  for (auto& thread : threads) thread.join();
  for (const Outcome& other : outcomes) EXPECT_EQ(outcomes[0].weights, other.weights);
  return outcomes[0];
}

TEST(Roles, GiveTheBitsOfOneProcessForAnyNumberOfServersWorkersAndTrainers) {
  at::set_num_threads(1);
  RunConfig run = small_run();
  for (bool deterministic : {true, false}) {
    run.trainer.deterministic = deterministic;
    run.trainer.mode = deterministic ? Mode::hybrid : Mode::sync;  // staleness 10, and 0
    run.servers = run.trainers = run.workers = 1;
    Outcome one = in_one_process(run);
    run.replicas = 1;
    EXPECT_EQ(one, in_roles(run)) << "with a replica";
    run.replicas = 0;
    for (int64_t servers : {1, 3})
      for (int64_t trainers : {1, 2}) {
        run.servers = servers;
        run.trainers = run.workers = trainers;
        EXPECT_EQ(one, in_roles(run)) << deterministic << " " << servers << " " << trainers;
      }
  }
}

TEST(Roles, ErrorsOfTheDataReachTheTrainer) {
  RunConfig run = small_run();
  run.data.kind = "adult";
  run.data.path = "/nowhere";
  Place place;
  place.meeting.store = make_memory_store();
  auto loader = serve_role(run, {RoleName::loader}, place);
  ASSERT_FALSE(loader.ok());
  EXPECT_NE(loader.error().message.find("/nowhere"), std::string::npos);
}

TEST(Roles, NamesAreReadAndMistakesExplained) {
  for (const char* text : {"loader", "worker:0", "server:12", "replica:12", "trainer:3"})
    EXPECT_EQ(parse_role(text)->text(), text);
  for (const char* text : {"", "server", "server:", "server:x", "server:-1", "loader:1", "serve:1"})
    EXPECT_FALSE(parse_role(text).ok()) << text;
  EXPECT_NE(parse_role("serve:1").error().message.find("did you mean 'server'"), std::string::npos);
}

}  // namespace
}  // namespace tessera::recsys_roles
