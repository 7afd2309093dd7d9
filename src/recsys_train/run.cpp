#include "recsys_train/run.h"

#include "core/clock.h"
#include "core/hash.h"
#include "recsys_train/cached_servers.h"
#include "recsys_train/checkpoint.h"
#include "recsys_train/checkpointer.h"
#include "recsys_train/wire_servers.h"

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

// The dense part of a checkpoint.
Status resume(const std::string& folder, Trainer& trainer) {
  TESSERA_ASSIGN_OR_RETURN(Checkpoint checkpoint, read_checkpoint(folder));
  TESSERA_ASSIGN_OR_RETURN(auto dense, read_dense(checkpoint));
  if (const size_t floats = trainer.state().size(); floats != dense.size())
    return invalid(
        "{} has {} floats of dense weights and optimizer state, this model {}; were model.* or "
        "dense.optimizer changed?",
        folder, dense.size(), floats);
  trainer.set_state(dense, checkpoint.standing);
  return {};
}

}  // namespace

std::vector<int64_t> dims_of(const EmbeddingPlan& plan) {
  std::vector<int64_t> dims;
  for (const auto& group : plan.store_groups) dims.push_back(group.dim);
  return dims;
}

WorkerView::WorkerView(const RunConfig& run, const EmbeddingPlan& plan, EmbeddingServers& servers, Place place)
    : seen_(&servers) {
  auto add = [this](std::unique_ptr<EmbeddingServers> layer) {
    seen_ = layers_.emplace_back(std::move(layer)).get();
  };
  if (run.wire.on && place == Place::same_process) add(make_wire_servers(*seen_, run.wire, dims_of(plan)));
  if (run.cache_rows > 0)
    add(std::make_unique<CachedServers>(*seen_, CachedServers::Options{run.cache_rows, dims_of(plan)}));
}

ServingOptions serving_options(const RunConfig& run) {
  auto bounds = staleness_bounds(run.trainer, 1);
  return {.parts = std::max<int64_t>(1, run.trainer.parts),
          .ordered = run.trainer.deterministic || bounds.largest() == 0,
          .resume = run.resume};
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
      setup->model, DenseModel::create(run.model, static_cast<int64_t>(features.numeric.size()),
                                       static_cast<int64_t>(features.slots.size()), run.embedding.dim, run.seed,
                                       setup->embeddings.lookup.sequences()));
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
  const bool fresh = setup->memory == nullptr || setup->memory->fresh();
  setup->trainer = std::make_unique<Trainer>(std::move(parts), options);
  if (fresh && !run.resume.empty()) TESSERA_RETURN_IF_ERROR(resume(run.resume, *setup->trainer));
  return setup;
}

Result<std::unique_ptr<Setup>> set_up(const RunConfig& run, const TrainerSeat& seat) {
  TESSERA_ASSIGN_OR_RETURN(auto splits, recsys_data::open_data(run.data));
  auto data = std::make_unique<recsys_data::Splits>(std::move(splits));
  DataFacts facts = facts_of(*data);
  TESSERA_ASSIGN_OR_RETURN(EmbeddingPlan plan, plan_embeddings(run, facts.features));
  RunConfig serving = run;
  serving.trainer.parts = std::max(run.trainer.parts, seat.trainers);
  TESSERA_ASSIGN_OR_RETURN(
      auto servers, make_local_servers(plan.store_groups, run.servers, serving_options(serving), run.disk));
  WorkerView view(run, plan, *servers, WorkerView::Place::same_process);
  auto loader = std::make_unique<LocalLoader>(*data, serving.trainer.parts > 1 ? serving.trainer.parts : 0);
  TrainerOptions options = run.trainer;
  options.group_staleness = plan.staleness;
  auto worker = std::make_unique<LocalWorker>(*loader, view.servers(), plan.lookup,
                                              staleness_bounds(options, plan.lookup.num_groups));
  TESSERA_ASSIGN_OR_RETURN(auto setup, set_up_trainer(run, facts, std::move(worker), seat));
  setup->data = std::move(data);
  setup->loader = std::move(loader);
  setup->servers = std::move(servers);
  setup->view = std::move(view);
  return setup;
}

Result<RunResult> train(const RunConfig& run, Setup& setup, const RunCallbacks& callbacks) {
  Trainer& trainer = *setup.trainer;
  RunResult result{.best_auc = setup.facts.best_auc};
  const bool saves = run.trainer.checkpoint_every > 0 && setup.rank == 0;
  Checkpointer checkpointer(run, setup);
  if (saves) trainer.on_checkpoint = [&](const Standing& at) { return checkpointer.save(at), Status(); };
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
  if (saves) checkpointer.save(trainer.standing());
  TESSERA_ASSIGN_OR_RETURN(result.groups, group_results(setup));
  TESSERA_ASSIGN_OR_RETURN(result.traffic, setup.worker->traffic());
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
