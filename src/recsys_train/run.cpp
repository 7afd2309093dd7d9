#include "recsys_train/run.h"

#include "core/clock.h"

namespace tessera::recsys_train {
namespace {

Result<std::vector<GroupResult>> group_results(const Setup& setup) {
  std::vector<GroupResult> results;
  for (int64_t g = 0; g < setup.embeddings.lookup.num_groups; ++g) {
    GroupResult result{.name = setup.embeddings.group_names[static_cast<size_t>(g)],
                       .staleness_bound = setup.trainer->staleness().bound(g),
                       .staleness = setup.trainer->staleness().histogram(g)};
    TESSERA_ASSIGN_OR_RETURN(result.rows, setup.servers->stats(setup.embeddings.lookup.store_group(g)));
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace

Result<std::unique_ptr<Setup>> set_up(const RunConfig& run, Group* trainers,
                                      const ServersFactory& make_servers) {
  auto setup = std::make_unique<Setup>();
  TESSERA_ASSIGN_OR_RETURN(setup->data, recsys_data::open_data(run.data));
  const auto& features = setup->data.train->features();
  TESSERA_ASSIGN_OR_RETURN(setup->embeddings, plan_embeddings(run, features));
  const auto& groups = setup->embeddings.store_groups;
  TESSERA_ASSIGN_OR_RETURN(setup->servers,
                           make_servers ? make_servers(groups) : make_local_servers(groups, run.servers));
  TESSERA_ASSIGN_OR_RETURN(
      setup->model,
      DenseModel::create(run.model, static_cast<int64_t>(features.numeric.size()),
                         static_cast<int64_t>(features.slots.size()), run.embedding.dim, run.seed));
  TESSERA_ASSIGN_OR_RETURN(setup->optimizer, DenseOptimizer::create(run.dense, setup->model->parameters()));
  TrainerOptions options = run.trainer;
  options.group_staleness = setup->embeddings.staleness;
  setup->trainer = std::make_unique<Trainer>(TrainerParts{.servers = setup->servers.get(),
                                                          .model = setup->model.get(),
                                                          .optimizer = setup->optimizer.get(),
                                                          .trainers = trainers,
                                                          .plan = setup->embeddings.lookup},
                                             options);
  return setup;
}

Result<RunResult> train(const RunConfig& run, Setup& setup, const RunCallbacks& callbacks) {
  RunResult result{.best_auc = setup.data.best_auc};
  if (callbacks.on_start) callbacks.on_start(setup.data.train->rows() * run.epochs);
  for (int64_t epoch = 0; epoch < run.epochs; ++epoch) {
    double loss = 0;
    auto start = Clock::now();
    TESSERA_ASSIGN_OR_RETURN(int64_t rows,
                             setup.trainer->epoch(*setup.data.train, epoch, [&](const StepReport& step) {
                               loss += step.loss * static_cast<double>(step.rows);
                               result.wait_s += step.wait_s;
                               result.dense_s += step.dense_s;
                               result.reduce_s += step.reduce_s;
                               if (callbacks.on_step) callbacks.on_step(step);
                             }));
    result.train_s += seconds_since(start);
    if (rows == 0) return invalid("the training data has no rows");
    result.rows += rows;
    result.steps = setup.trainer->steps();
    result.mean_loss = loss / static_cast<double>(rows);
    if (!setup.data.test) continue;
    TESSERA_ASSIGN_OR_RETURN(Quality quality, setup.trainer->evaluate(*setup.data.test));
    result.tests.push_back(quality);
    if (callbacks.on_test) callbacks.on_test(epoch, result.steps, quality);
  }
  TESSERA_ASSIGN_OR_RETURN(result.groups, group_results(setup));
  return result;
}

}  // namespace tessera::recsys_train
