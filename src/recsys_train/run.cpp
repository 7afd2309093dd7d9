#include "recsys_train/run.h"

#include "core/clock.h"
#include "core/hash.h"

namespace tessera::recsys_train {
namespace {

Result<std::vector<GroupResult>> group_results(const Setup& setup) {
  std::vector<GroupResult> results;
  for (int64_t g = 0; g < setup.embeddings.lookup.num_groups; ++g) {
    GroupResult result{.name = setup.embeddings.group_names[static_cast<size_t>(g)],
                       .staleness_bound = setup.trainer->staleness().bound(g),
                       .staleness = setup.trainer->staleness().histogram(g)};
    TESSERA_ASSIGN_OR_RETURN(result.rows, setup.worker->stats(g));
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace

ServingOptions serving_options(const RunConfig& run) {
  auto bounds = staleness_bounds(run.trainer, 1);
  return {.parts = std::max<int64_t>(1, run.trainer.parts),
          .ordered = run.trainer.deterministic || bounds[0] == 0};
}

Result<std::unique_ptr<Setup>> set_up_trainer(const RunConfig& run, DataFacts facts,
                                              std::unique_ptr<EmbeddingWorker> worker,
                                              const TrainerSeat& seat) {
  auto setup = std::make_unique<Setup>();
  setup->facts = std::move(facts);
  setup->rank = seat.rank;
  setup->worker = std::move(worker);
  const auto& features = setup->facts.features;
  TESSERA_ASSIGN_OR_RETURN(setup->embeddings, plan_embeddings(run, features));
  TESSERA_ASSIGN_OR_RETURN(
      setup->model,
      DenseModel::create(run.model, static_cast<int64_t>(features.numeric.size()),
                         static_cast<int64_t>(features.slots.size()), run.embedding.dim, run.seed));
  TESSERA_ASSIGN_OR_RETURN(setup->optimizer, DenseOptimizer::create(run.dense, setup->model->parameters()));
  TrainerOptions options = run.trainer;
  options.group_staleness = setup->embeddings.staleness;
  if (options.parts == 0) options.parts = seat.trainers;
  TrainerParts parts{.worker = setup->worker.get(),
                     .model = setup->model.get(),
                     .optimizer = setup->optimizer.get(),
                     .plan = setup->embeddings.lookup,
                     .rank = seat.rank,
                     .trainers = seat.trainers,
                     .exchange = seat.exchange};
  if (!seat.memory.empty()) {
    TESSERA_ASSIGN_OR_RETURN(setup->memory, TrainerMemory::open(seat.memory, memory_shape(parts, options)));
    parts.memory = setup->memory.get();
  }
  setup->trainer = std::make_unique<Trainer>(std::move(parts), options);
  return setup;
}

Result<std::unique_ptr<Setup>> set_up(const RunConfig& run, const TrainerSeat& seat) {
  TESSERA_ASSIGN_OR_RETURN(auto splits, recsys_data::open_data(run.data));
  auto data = std::make_unique<recsys_data::Splits>(std::move(splits));
  DataFacts facts = facts_of(*data);
  TESSERA_ASSIGN_OR_RETURN(EmbeddingPlan plan, plan_embeddings(run, facts.features));
  RunConfig serving = run;
  serving.trainer.parts = std::max(run.trainer.parts, seat.trainers);
  TESSERA_ASSIGN_OR_RETURN(auto servers,
                           make_local_servers(plan.store_groups, run.servers, serving_options(serving)));
  auto loader = std::make_unique<LocalLoader>(*data, serving.trainer.parts > 1 ? serving.trainer.parts : 0);
  TrainerOptions options = run.trainer;
  options.group_staleness = plan.staleness;
  auto worker = std::make_unique<LocalWorker>(*loader, *servers, plan.lookup,
                                              staleness_bounds(options, plan.lookup.num_groups));
  TESSERA_ASSIGN_OR_RETURN(auto setup, set_up_trainer(run, facts, std::move(worker), seat));
  setup->data = std::move(data);
  setup->loader = std::move(loader);
  setup->servers = std::move(servers);
  return setup;
}

Result<RunResult> train(const RunConfig& run, Setup& setup, const RunCallbacks& callbacks) {
  Trainer& trainer = *setup.trainer;
  RunResult result{.best_auc = setup.facts.best_auc};
  if (callbacks.on_start) callbacks.on_start(setup.facts.train_rows * run.epochs);
  while (trainer.standing().epoch < run.epochs) {
    const int64_t epoch = trainer.standing().epoch;
    auto start = Clock::now();
    auto rows = trainer.epoch([&](const StepReport& step) {
      result.wait_s += step.wait_s;
      result.dense_s += step.dense_s;
      result.reduce_s += step.reduce_s;
      if (callbacks.on_step) callbacks.on_step(step);
    });
    if (!rows) return rows.error();
    result.train_s += seconds_since(start);
    const Standing& progress = trainer.standing();
    if (progress.rows == 0) return invalid("the training data has no rows");
    result.rows += *rows;
    result.steps = progress.step;
    result.mean_loss = progress.loss / static_cast<double>(progress.rows);
    if (setup.facts.has_test && setup.rank == 0) {
      TESSERA_ASSIGN_OR_RETURN(Quality quality, trainer.evaluate());
      result.tests.push_back(quality);
      if (callbacks.on_test) callbacks.on_test(epoch, result.steps, quality);
    }
    trainer.finish_epoch();
  }
  TESSERA_ASSIGN_OR_RETURN(result.groups, group_results(setup));
  return result;
}

Status add_hashes(Setup& setup, RunResult& result) {
  std::vector<float> state = setup.trainer->state();
  result.weights_hash = hex(hash64(std::as_bytes(std::span(state))));
  TESSERA_ASSIGN_OR_RETURN(uint64_t rows, setup.worker->digest(setup.trainer->standing().step));
  result.rows_hash = hex(rows);
  return {};
}

}  // namespace tessera::recsys_train
