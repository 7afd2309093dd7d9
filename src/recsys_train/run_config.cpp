#include "recsys_train/run_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "core/nearest.h"
#include "recsys_train/checkpoint.h"

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
  config.bind("embedding.row_type", &group.row_type, "float32, bf16, fp16 or int8", recsys::parse_row_type,
              [](recsys::RowType type) { return recsys::to_string(type); });
  config.bind("embedding.stochastic_rounding", &group.stochastic_rounding, "for row types other than float32");
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
  using Admission = recsys::AdmissionOptions::Kind;
  using Eviction = recsys::EvictionOptions::Kind;
  config.bind("embedding.admission", &group.admission.kind,
              "which ids get a row: all, probability, counter or bloom", recsys::parse_admission,
              [](Admission kind) { return recsys::to_string(kind); });
  config.bind("embedding.admission_probability", &group.admission.probability, "probability: at each visit");
  config.bind("embedding.admission_threshold", &run.admission_threshold,
              "counter, bloom: the visit at which a row is made, from 1");
  config.bind("embedding.memory_bytes", &run.memory_bytes, "memory for all rows; 0: no bound");
  config.bind("embedding.eviction", &group.eviction.kind,
              "which rows leave it: lru, lfu, ttl or l2-norm; none stands for lru where there is a bound",
              recsys::parse_eviction, [](Eviction kind) { return recsys::to_string(kind); });
  config.bind("embedding.ttl_steps", &group.eviction.ttl_steps,
              "ttl: rows untouched for longer go, bound or not");
  config.bind("embedding.disk", &run.disk.folder,
              "folder where rows go that leave memory, to come back when asked for; empty: they are dropped");
  config.bind("embedding.disk_bytes", &run.disk.budget_bytes, "most bytes of each group there; 0: no bound");
  config.bind("embedding.disk_direct", &run.disk.direct, "past the page cache");
  config.bind("wide.optimizer", &run.wide_optimizer.kind, "of the one-dimensional rows of deepfm and wide-deep",
              recsys::parse_optimizer,
              [](recsys::OptimizerOptions::Kind kind) { return recsys::to_string(kind); });
  config.bind("wide.learning_rate", &run.wide_optimizer.learning_rate, "of those rows");
  config.bind_table("groups", &run.groups, "slots with a staleness bound or learning rate of their own");
}

void bind_wire(Config& config, RunConfig& run) {
  auto bind_type = [&config](const char* key, recsys::RowType* type, const char* help) {
    config.bind(key, type, help, recsys::parse_row_type,
                [](recsys::RowType t) { return recsys::to_string(t); });
  };
  config.bind("wire.compress", &run.wire.on, "ids packed and values in few bits between workers and servers");
  bind_type("wire.rows", &run.wire.rows, "float32, fp16, bf16 or int8 with a scale for 32 values");
  bind_type("wire.gradients", &run.wire.gradients, "the same, of gradients of rows");
  config.bind("wire.error_feedback", &run.wire.error_feedback,
              "what rounding takes from a gradient is sent later");
  bind_type("wire.pooled", &run.wire.pooled,
            "the same, of pooled rows and their gradients between workers and trainers that are processes");
  config.bind("wire.cache_rows", &run.cache_rows,
              "rows of each group that a worker keeps within the bound of staleness; 0: none");
}

recsys::GroupOptions embedding_options(const RunConfig& run) {
  recsys::GroupOptions group = run.embedding;
  group.init.low = static_cast<float>(run.init_low);
  group.init.high = static_cast<float>(run.init_high);
  group.init.deviation = static_cast<float>(run.init_deviation);
  group.init.seed = run.seed;
  group.admission.threshold = static_cast<uint32_t>(run.admission_threshold);
  return group;
}

Status check(const RunConfig& run) {
  struct Bound {
    const char* key;
    int64_t value, least;
  };
  const TrainerOptions& trainer = run.trainer;
  for (Bound bound : {Bound{"train.batch", trainer.batch, 1},
                      Bound{"train.epochs", run.epochs, 0},
                      Bound{"train.staleness", trainer.staleness, 0},
                      Bound{"train.staleness_warmup", trainer.staleness_warmup, 0},
                      Bound{"train.prefetch", trainer.prefetch, 1},
                      Bound{"train.parts", trainer.parts, 0},
                      Bound{"train.dense_staleness", trainer.dense_staleness, 0},
                      Bound{"train.servers", run.servers, 1},
                      Bound{"train.trainers", run.trainers, 1},
                      Bound{"train.workers", run.workers, 1},
                      Bound{"train.checkpoint_every", trainer.checkpoint_every, 0},
                      Bound{"train.full_every", run.full_every, 1},
                      Bound{"train.keep", run.keep, 0},
                      Bound{"train.threads", run.threads, 0},
                      Bound{"train.replicas", run.replicas, 0},
                      Bound{"embedding.memory_bytes", run.memory_bytes, 0},
                      Bound{"model.sequence_length", run.sequence_length, 1},
                      Bound{"embedding.admission_threshold", run.admission_threshold, 1},
                      Bound{"embedding.disk_bytes", run.disk.budget_bytes, 0},
                      Bound{"wire.cache_rows", run.cache_rows, 0}})
    if (bound.value < bound.least)
      return invalid("{}={}: expected at least {}", bound.key, bound.value, bound.least);
  if (run.replicas > 1) return invalid("train.replicas={}: expected 0 or 1", run.replicas);
  if (trainer.parts % run.trainers != 0)
    return invalid("train.parts={} over train.trainers={}: expected a multiple", trainer.parts, run.trainers);
  if (!run.disk.folder.empty() && run.memory_bytes == 0)
    return invalid(
        "embedding.disk={}: embedding.memory_bytes says how much memory rows may take before they go there, "
        "and is 0",
        run.disk.folder);
  if (!run.disk.folder.empty() && run.replicas > 0)
    return invalid("train.replicas={} with embedding.disk: a job with replicas keeps all rows in memory",
                   run.replicas);
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

void share_memory(const RunConfig& run, std::vector<recsys::GroupOptions>& groups) {
  if (run.memory_bytes == 0) return;
  int64_t all = 0;
  auto bytes_of = [](const recsys::GroupOptions& group) { return row_bytes(group) + state_bytes(group); };
  for (const auto& group : groups) all += bytes_of(group);
  for (auto& group : groups) {
    if (group.eviction.kind == recsys::EvictionOptions::Kind::none)
      group.eviction.kind = recsys::EvictionOptions::Kind::lru;
    const double share = static_cast<double>(bytes_of(group)) / static_cast<double>(all * run.servers);
    group.eviction.budget_bytes =
        std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(run.memory_bytes)));
  }
}

Result<size_t> slot_named(const std::string& name, const std::string& where,
                          const recsys_data::Features& features) {
  auto found = std::find(features.slots.begin(), features.slots.end(), name);
  if (found != features.slots.end()) return static_cast<size_t>(found - features.slots.begin());
  return invalid("{}: the data has no slot '{}'{}", where, name, did_you_mean(name, features.slots));
}

// Rows are shared, so both slots must be of one group.
Status plan_sequences(const RunConfig& run, const recsys_data::Features& features, LookupPlan& plan) {
  for (const std::string& text : run.sequences) {
    const size_t colon = text.find(':');
    const std::string where = fmt::format("model.sequences '{}'", text);
    if (colon == std::string::npos) return invalid("{}: expected HISTORY:ITEM, two slots of the data", where);
    TESSERA_ASSIGN_OR_RETURN(size_t history, slot_named(text.substr(0, colon), where, features));
    TESSERA_ASSIGN_OR_RETURN(size_t target, slot_named(text.substr(colon + 1), where, features));
    SlotPlan& slot = plan.slots[history];
    if (history == target || slot.sequence > 0 || plan.slots[target].sequence > 0)
      return invalid("{}: expected a slot that is no other sequence or target, and a target that is none",
                     where);
    if (slot.group != plan.slots[target].group)
      return invalid("{}: the two are in different groups, and share their rows", where);
    slot.sequence = run.sequence_length;
    slot.rows_of = static_cast<int64_t>(target);
  }
  return {};
}

// Finds the checkpoint to go on from. A round of batches must be what it was, or rows would be trained on
// twice.
Status settle_checkpoints(RunConfig& run) {
  if (run.trainer.checkpoint_every > 0 && run.run_dir.empty())
    return invalid("train.checkpoint_every={}: train.run_dir says where, and is empty",
                   run.trainer.checkpoint_every);
  if (run.resume == "auto") {
    auto newest = newest_checkpoint(run.run_dir);
    if (!newest && newest.error().code != ErrorCode::not_found) return newest.error();
    run.resume = newest ? newest->string() : "";
  }
  if (run.resume.empty()) return {};
  if (run.resume == "latest") {
    if (run.run_dir.empty()) return invalid("train.resume=latest: train.run_dir says of what, and is empty");
    TESSERA_ASSIGN_OR_RETURN(auto newest, newest_checkpoint(run.run_dir));
    run.resume = newest.string();
  }
  TESSERA_ASSIGN_OR_RETURN(Checkpoint checkpoint, read_checkpoint(run.resume));
  if (checkpoint.batch == run.trainer.batch && checkpoint.parts == run.trainer.parts) return {};
  return invalid("{} was made with train.batch={} and train.parts={}, this run has {} and {}", run.resume,
                 checkpoint.batch, checkpoint.parts, run.trainer.batch, run.trainer.parts);
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
  config.bind(
      "model.sequences", &run.sequences,
      "behaviours of a user and what they are weighed for, \"HISTORY:ITEM\": a slot with several ids in order "
      "of time, and the slot whose rows it shares");
  config.bind("model.sequence_length", &run.sequence_length, "behaviours kept, the last ones");
  config.bind("model.attention", &run.model.attention, "hidden layers of their attention, \"80,40\"",
              parse_sizes, sizes_text);
  config.bind("model.attention_softmax", &run.model.attention_softmax,
              "weights of behaviours add up to 1; else as in the Deep Interest Network");
  bind_embedding(config, run);
  bind_wire(config, run);
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
  config.bind("train.staleness_warmup", &trainer.staleness_warmup,
              "steps over which the bound grows from 0 to that; 0: it holds from the start");
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
  config.bind("train.run_dir", &run.run_dir, "where record and checkpoints of the run go; empty: none");
  config.bind("train.checkpoint_every", &trainer.checkpoint_every, "steps between checkpoints; 0: none");
  config.bind("train.full_every", &run.full_every,
              "every n-th checkpoint holds all rows, the others those that changed");
  config.bind("train.keep", &run.keep, "newest checkpoints kept; 0: all");
  config.bind(
      "train.resume", &run.resume,
      "checkpoint to go on from: latest (of train.run_dir), auto (the same, if there is one), or its folder");
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
  TESSERA_RETURN_IF_ERROR(settle_checkpoints(run));
  return run;
}

Status check_run_dir(const RunConfig& run) {
  if (run.trainer.checkpoint_every == 0) return {};
  if (run.resume.empty()) return check_no_later_checkpoint(run.run_dir, -1);
  TESSERA_ASSIGN_OR_RETURN(Checkpoint checkpoint, read_checkpoint(run.resume));
  return check_no_later_checkpoint(run.run_dir, checkpoint.standing.step);
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
      TESSERA_ASSIGN_OR_RETURN(size_t number, slot_named(slot, fmt::format("groups.{}.slots", name), features));
      SlotPlan& place = plan.lookup.slots[number];
      if (place.group != 0) return invalid("groups.{}.slots: slot '{}' is in two groups", name, slot);
      place.group = plan.lookup.num_groups;
    }
    plan.group_names.push_back(name);
    plan.staleness.push_back(group.staleness);
    add_store_groups(run, name, group.learning_rate, plan);
    ++plan.lookup.num_groups;
  }
  TESSERA_RETURN_IF_ERROR(plan_sequences(run, features, plan.lookup));
  share_memory(run, plan.store_groups);
  return plan;
}

}  // namespace tessera::recsys_train
