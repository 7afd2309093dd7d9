#include "recsys_train/run_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "core/nearest.h"

namespace tessera::recsys_train {
namespace {

Result<std::vector<int64_t>> parse_sizes(std::string_view text) {
  std::vector<int64_t> sizes;
  const char *at = text.data(), *end = at + text.size();
  while (at < end) {
    int64_t size = 0;
    auto [stop, failure] = std::from_chars(at, end, size);
    if (failure != std::errc() || (stop < end && *stop != ','))
      return invalid("got '{}', expected sizes such as \"256,128\"", text);
    sizes.push_back(size);
    at = stop < end ? stop + 1 : end;
    while (at < end && *at == ' ') ++at;
  }
  return sizes;
}
std::string sizes_text(const std::vector<int64_t>& sizes) {
  return fmt::format("{}", fmt::join(sizes, ","));
}

void bind_data(Config& config, recsys_data::DataOptions& data) {
  config.bind("data.kind", &data.kind, "adult, open_bandit, criteo_kaggle, criteo_terabyte, csv or synthetic");
  config.bind("data.path", &data.path, "file or folder of the data");
  config.bind("data.test_path", &data.test_path,
              "file of test rows, for csv and criteo; empty: a share is held out");
  config.bind("data.valid", &data.valid, "share of rows for validation, before the test rows");
  config.bind("data.test", &data.test, "share of rows held out for the test, the last in time");
  config.bind("data.shuffle", &data.shuffle,
              "new order of the training rows in each epoch, where held in memory");
  config.bind("data.seed", &data.seed, "of that order, and of synthetic rows");
  config.bind("data.label", &data.label, "csv: column of the label");
  config.bind("data.positive", &data.positive, "csv: text of a positive label");
  config.bind("data.negative", &data.negative, "csv: text of a negative label");
  config.bind("data.time", &data.time, "csv: column that orders the rows");
  config.bind("data.numeric", &data.numeric, "csv: columns of numbers");
  config.bind("data.categorical", &data.categorical,
              "csv: columns with one id; NAME:N for whole numbers below N");
  config.bind("data.multi_hot", &data.multi_hot, "csv: columns with several ids");
  config.bind("data.separator", &data.separator, "csv: between columns; tab for a tab");
  config.bind("data.inner_separator", &data.inner_separator, "csv: between the ids of a multi-hot column");
  config.bind("data.standardise", &data.standardise, "csv, open_bandit: numbers to mean 0 and deviation 1");
  config.bind("data.slots", &data.slots, "synthetic: mlperf, mlperf-multi-hot, or sizes such as \"1000,20\"");
  config.bind("data.scale", &data.scale, "synthetic: factor on the sizes of mlperf slots");
  config.bind("data.train_rows", &data.train_rows, "synthetic: rows of an epoch");
  config.bind("data.test_rows", &data.test_rows, "synthetic: rows of the test");
  config.bind("data.numbers", &data.numbers, "synthetic: numbers of a row");
  config.bind("data.exponent", &data.exponent, "synthetic: Zipf exponent of the ids");
  config.bind("data.signal", &data.signal, "synthetic: deviation of the true logit that ids explain");
  config.bind("data.number_signal", &data.number_signal, "synthetic: the same of numbers");
  config.bind("data.bias", &data.bias, "synthetic: constant of the true logit");
}

void bind_embedding(Config& config, RunConfig& run) {
  recsys::GroupOptions& group = run.embedding;
  recsys::OptimizerOptions& optimizer = group.optimizer;
  config.bind("embedding.dim", &group.dim, "numbers of a row");
  config.bind("embedding.row_type", &group.row_type, "f32, bf16, f16 or i8", recsys::parse_row_type,
              [](recsys::RowType type) { return recsys::to_string(type); });
  config.bind("embedding.stochastic_rounding", &group.stochastic_rounding, "for row types other than f32");
  config.bind("embedding.pooling", &run.pooling, "of several ids: sum, mean or sqrt-n", parse_pooling,
              [](Pooling pooling) { return to_string(pooling); });
  config.bind("embedding.init", &group.init.kind, "zeros, constant, uniform or normal", recsys::parse_init,
              [](recsys::InitOptions::Kind kind) { return recsys::to_string(kind); });
  config.bind("embedding.init_low", &run.init_low, "uniform: lowest initial value");
  config.bind("embedding.init_high", &run.init_high, "uniform: highest initial value");
  config.bind("embedding.init_deviation", &run.init_deviation, "normal: standard deviation");
  config.bind("embedding.optimizer", &optimizer.kind,
              "sgd, adagrad, adagrad-row, adam, adamw, ftrl or lamb-row", recsys::parse_optimizer,
              [](recsys::OptimizerOptions::Kind kind) { return recsys::to_string(kind); });
  config.bind("embedding.learning_rate", &optimizer.learning_rate, "of the rows");
  config.bind("embedding.weight_decay", &optimizer.weight_decay, "of touched rows");
  config.bind("embedding.epsilon", &optimizer.epsilon, "of Adagrad and Adam");
  config.bind("embedding.initial_accumulator", &optimizer.initial_accumulator, "of Adagrad");
  config.bind("embedding.accumulate_after", &optimizer.accumulate_after,
              "Adagrad divides before it adds the new square, as Persia does");
  config.bind("wide.optimizer", &run.wide_optimizer.kind, "of the one-dimensional rows of deepfm and wide-deep",
              recsys::parse_optimizer,
              [](recsys::OptimizerOptions::Kind kind) { return recsys::to_string(kind); });
  config.bind("wide.learning_rate", &run.wide_optimizer.learning_rate, "of those rows");
  config.bind_table("groups", &run.groups, "slots with a staleness bound or learning rate of their own");
}

recsys::GroupOptions embedding_options(const RunConfig& run) {
  recsys::GroupOptions group = run.embedding;
  group.init.low = static_cast<float>(run.init_low);
  group.init.high = static_cast<float>(run.init_high);
  group.init.deviation = static_cast<float>(run.init_deviation);
  group.init.seed = run.seed;
  return group;
}

Status check(const RunConfig& run) {
  struct Bound {
    const char* key;
    int64_t value, least;
  };
  const TrainerOptions& trainer = run.trainer;
  for (Bound bound :
       {Bound{"train.batch", trainer.batch, 1}, Bound{"train.epochs", run.epochs, 0},
        Bound{"train.staleness", trainer.staleness, 0}, Bound{"train.prefetch", trainer.prefetch, 1},
        Bound{"train.parts", trainer.parts, 0}, Bound{"train.dense_staleness", trainer.dense_staleness, 0},
        Bound{"train.servers", run.servers, 1}, Bound{"train.trainers", run.trainers, 1},
        Bound{"train.workers", run.workers, 1}, Bound{"train.threads", run.threads, 0},
        Bound{"train.replicas", run.replicas, 0}})
    if (bound.value < bound.least)
      return invalid("{}={}: expected at least {}", bound.key, bound.value, bound.least);
  if (run.replicas > 1) return invalid("train.replicas={}: expected 0 or 1", run.replicas);
  if (trainer.parts % run.trainers != 0)
    return invalid("train.parts={} over train.trainers={}: expected a multiple", trainer.parts, run.trainers);
  return recsys::validate(embedding_options(run));
}

// What the table of one group says.
struct GroupTable {
  std::vector<std::string> slots;
  int64_t staleness = -1;
  double learning_rate = -1;
};

Result<GroupTable> read_group(const std::string& name, const nlohmann::json& table) {
  GroupTable group;
  if (!table.is_object()) return invalid("groups.{}: expected a table", name);
  for (const auto& [key, value] : table.items()) {
    if (key == "slots" && value.is_array())
      for (const auto& slot : value)
        group.slots.push_back(slot.is_string() ? slot.get<std::string>() : slot.dump());
    else if (key == "staleness" && value.is_number_integer() && value.get<int64_t>() >= 0)
      group.staleness = value.get<int64_t>();
    else if (key == "learning_rate" && value.is_number())
      group.learning_rate = value.get<double>();
    else
      return invalid("groups.{}.{}: got {}, expected slots (a list), staleness (at least 0) or learning_rate{}",
                     name, key, value.dump(), did_you_mean(key, {"slots", "staleness", "learning_rate"}));
  }
  if (group.slots.empty()) return invalid("groups.{}: slots is missing or empty", name);
  return group;
}

void add_store_groups(const RunConfig& run, const std::string& name, double learning_rate,
                      EmbeddingPlan& plan) {
  recsys::GroupOptions group = embedding_options(run);
  group.name = name;
  if (learning_rate >= 0) group.optimizer.learning_rate = learning_rate;
  plan.store_groups.push_back(group);
  if (!plan.lookup.wide) return;
  recsys::GroupOptions wide{.name = name + "-wide", .dim = 1};
  wide.init.kind = recsys::InitOptions::Kind::zeros;
  wide.optimizer = run.wide_optimizer;
  plan.store_groups.push_back(wide);
}

}  // namespace

void bind(Config& config, RunConfig& run) {
  bind_data(config, run.data);
  config.bind("model.kind", &run.model.kind, "dnn, dlrm, dcnv2, deepfm or wide-deep");
  config.bind("model.bottom", &run.model.bottom, "layers for the numbers, \"64,16\"; empty: none", parse_sizes,
              sizes_text);
  config.bind("model.top", &run.model.top, "hidden layers before the logit, \"256,128\"", parse_sizes,
              sizes_text);
  config.bind("model.cross_layers", &run.model.cross_layers, "dcnv2: cross layers");
  config.bind("model.cross_rank", &run.model.cross_rank, "dcnv2: rank of their matrices; 0: full");
  bind_embedding(config, run);
  config.bind("dense.optimizer", &run.dense.kind, "sgd, adagrad or adam");
  config.bind("dense.learning_rate", &run.dense.learning_rate, "of the dense weights");
  config.bind("dense.momentum", &run.dense.momentum, "sgd");
  config.bind("dense.beta1", &run.dense.beta1, "adam");
  config.bind("dense.beta2", &run.dense.beta2, "adam");
  config.bind("dense.epsilon", &run.dense.epsilon, "adam");
  config.bind("dense.weight_decay", &run.dense.weight_decay, "L2 penalty of the dense weights");
  TrainerOptions& trainer = run.trainer;
  config.bind("train.mode", &trainer.mode, "sync, hybrid or async", parse_mode,
              [](Mode mode) { return to_string(mode); });
  config.bind("train.staleness", &trainer.staleness, "hybrid, async: batches that may be outstanding");
  config.bind("train.dense_staleness", &trainer.dense_staleness,
              "async: steps by which dense gradients are late");
  config.bind("train.deterministic", &trainer.deterministic,
              "one thread, and gradients as late as the bound allows: a run is a function of its options");
  config.bind("train.prefetch", &trainer.prefetch, "batches loaded ahead");
  config.bind("train.batch", &trainer.batch, "rows of a step");
  config.bind("train.parts", &trainer.parts,
              "batches of a step, averaged: the work that trainers share; 0: one for each trainer");
  config.bind("train.epochs", &run.epochs, "passes over the training rows");
  config.bind("train.servers", &run.servers, "embedding stores the rows are spread over");
  config.bind("train.replicas", &run.replicas,
              "of each server, in a process that belongs on another host: 0 or 1; by tessera launch");
  config.bind("train.trainers", &run.trainers,
              "dense trainers, which share the parts of a step; by tessera launch");
  config.bind("train.workers", &run.workers,
              "embedding workers between trainers and servers; by tessera launch");
  config.bind("train.seed", &run.seed, "of weights and rows");
  config.bind("train.threads", &run.threads, "of the dense network; 0: libtorch's choice");
  config.bind("train.run_dir", &run.run_dir, "where the record of the run goes; empty: none");
}

Result<RunConfig> load_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                  std::string* explained) {
  RunConfig run;
  Config config;
  bind(config, run);
  if (!file.empty()) TESSERA_RETURN_IF_ERROR(config.load_file(file));
  TESSERA_RETURN_IF_ERROR(config.set_all(overrides));
  if (explained != nullptr) *explained = config.explain();
  TESSERA_RETURN_IF_ERROR(check(run));
  if (run.trainer.parts == 0) run.trainer.parts = run.trainers;
  return run;
}

Result<EmbeddingPlan> plan_embeddings(const RunConfig& run, const recsys_data::Features& features) {
  EmbeddingPlan plan;
  if (features.slots.size() > 255) return invalid("{} slots: at most 255", features.slots.size());
  plan.lookup.dim = run.embedding.dim;
  plan.lookup.wide = has_linear_part(run.model.kind);
  plan.lookup.slots.assign(features.slots.size(), {.group = 0, .pooling = run.pooling});
  plan.group_names = {"default"};
  plan.staleness = {-1};
  add_store_groups(run, "default", -1, plan);
  for (const auto& [name, table] : run.groups.items()) {
    TESSERA_ASSIGN_OR_RETURN(GroupTable group, read_group(name, table));
    for (const std::string& slot : group.slots) {
      auto found = std::find(features.slots.begin(), features.slots.end(), slot);
      if (found == features.slots.end())
        return invalid("groups.{}.slots: the data has no slot '{}'{}", name, slot,
                       did_you_mean(slot, features.slots));
      SlotPlan& place = plan.lookup.slots[static_cast<size_t>(found - features.slots.begin())];
      if (place.group != 0) return invalid("groups.{}.slots: slot '{}' is in two groups", name, slot);
      place.group = plan.lookup.num_groups;
    }
    plan.group_names.push_back(name);
    plan.staleness.push_back(group.staleness);
    add_store_groups(run, name, group.learning_rate, plan);
    ++plan.lookup.num_groups;
  }
  return plan;
}

}  // namespace tessera::recsys_train
