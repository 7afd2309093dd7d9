#include "recsys_serve/served_model.h"

#include <c10/core/InferenceMode.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cmath>

#include "core/clock.h"
#include "core/log.h"
#include "serve/torch_error.h"

namespace tessera::recsys_serve {

using recsys_train::DenseModel;
using recsys_train::ExportedModel;
using recsys_train::ExportedVersion;

namespace {

// Answers go first: applying a version must not take the processor from them.
void step_back() {
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), 19);
}

}  // namespace

double probability_of(float logit) {
  return 1 / (1 + std::exp(-static_cast<double>(logit)));
}

// One version: rows that the next version shares, weights that are its own.
struct ServedModel::State {
  std::shared_ptr<const ExportedModel> model;
  std::shared_ptr<recsys::Replica> rows;
  std::unique_ptr<DenseModel> weights;  // never computed with
  ExportedVersion version;

  // A network keeps what it computes, so each request has one of its own while it runs.
  std::unique_ptr<DenseModel> take() const {
    {
      std::lock_guard lock(mutex);
      if (!idle.empty()) {
        auto network = std::move(idle.back());
        idle.pop_back();
        return network;
      }
    }
    auto network = recsys_train::make_dense_model(*model);
    TESSERA_REQUIRE(network.ok(), "{}", network.error().message);
    (*network)->parameters().flat_values().copy_(weights->parameters().flat_values());
    return *std::move(network);
  }
  void give_back(std::unique_ptr<DenseModel> network) const {
    std::lock_guard lock(mutex);
    idle.push_back(std::move(network));
  }

  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<DenseModel>> idle;
};

namespace {

// Numbers and pooled rows of a batch, as the dense network takes them.
struct Inputs {
  at::Tensor numeric, pooled, wide, lengths;
};

Result<Inputs> look_up(const ExportedModel& model, const recsys::Replica& rows,
                       const recsys_data::Batch& batch) {
  const recsys_train::LookupPlan& plan = model.lookup;
  recsys_train::Lookup lookup;
  recsys_train::Deduplicator(plan).run(batch, lookup);
  for (int64_t g = 0; g < plan.num_groups; ++g) {
    recsys_train::GroupRows& group = lookup.groups[static_cast<size_t>(g)];
    group.rows.resize(group.keys.size() * static_cast<size_t>(plan.dim));
    TESSERA_RETURN_IF_ERROR(rows.get(plan.store_group(g), group.keys, group.rows));
    if (!plan.wide) continue;
    group.wide.resize(group.keys.size());
    TESSERA_RETURN_IF_ERROR(rows.get(plan.store_group(g) + 1, group.keys, group.wide));
  }
  const int64_t count = batch.rows, slots = static_cast<int64_t>(plan.slots.size());
  const int64_t numbers = static_cast<int64_t>(model.features.numeric.size());
  Inputs in{.numeric = at::empty({count, numbers}, at::kFloat),
            .pooled = at::empty({count, plan.num_places(), plan.dim}, at::kFloat),
            .wide = plan.wide ? at::empty({count, slots}, at::kFloat) : at::Tensor(),
            .lengths = at::empty({count, static_cast<int64_t>(plan.sequences().size())}, at::kFloat)};
  auto floats = [](at::Tensor& tensor) {
    if (!tensor.defined()) return std::span<float>();
    return std::span(tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel()));
  };
  std::copy(batch.numeric.begin(), batch.numeric.end(), floats(in.numeric).begin());
  pool(plan, lookup, {floats(in.pooled), floats(in.wide), floats(in.lengths)});
  return in;
}

}  // namespace

Result<std::unique_ptr<ServedModel>> ServedModel::open(Options options) {
  if (!std::filesystem::is_directory(options.folder))
    return make_error(ErrorCode::not_found,
                      "{}: there is no such folder; `tessera recsys train --export DIR` makes one",
                      options.folder.string());
  std::unique_ptr<ServedModel> served(new ServedModel(std::move(options)));
  if (recsys_train::newest_exported_version(served->options_.folder) > 0)
    TESSERA_RETURN_IF_ERROR(served->look());
  served->thread_ = std::thread([raw = served.get()] { raw->follow(); });
  return served;
}

ServedModel::~ServedModel() {
  {
    std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const ServedModel::State> ServedModel::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}
std::shared_ptr<const ExportedModel> ServedModel::model() const {
  auto now = state();
  return now ? now->model : nullptr;
}

Standing ServedModel::standing() const {
  std::shared_ptr<const State> now;
  Standing out;
  {
    std::lock_guard lock(mutex_);
    now = state_;
    out = standing_;
  }
  for (int64_t g = 0; now && g < now->rows->num_groups(); ++g) {
    auto stats = now->rows->stats(g);
    out.rows += stats.rows;
    out.bytes += stats.bytes;
  }
  return out;
}

Result<Scores> ServedModel::score(const recsys_data::Batch& batch) const {
  auto now = state();
  if (!now) return make_error(ErrorCode::unavailable, "no version of the model has been exported yet");
  Scores scores{.version = now->version.number, .step = now->version.step, .time = now->version.time};
  if (batch.rows == 0) return scores;
  try {
    c10::InferenceMode no_autograd;
    TESSERA_ASSIGN_OR_RETURN(Inputs in, look_up(*now->model, *now->rows, batch));
    auto network = now->take();
    at::Tensor logits = network->forward(in.numeric, in.pooled, in.wide, in.lengths).contiguous();
    const float* values = logits.const_data_ptr<float>();
    scores.logits.assign(values, values + logits.numel());
    now->give_back(std::move(network));
    return scores;
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::internal, "{}", serve::text_of(exception));
  }
}

// ---- following ----

void ServedModel::follow() {
  step_back();
  std::unique_lock lock(mutex_);
  while (!ends_) {
    lock.unlock();
    Status status = look();
    lock.lock();
    std::string problem = status.ok() ? "" : status.error().message;
    if (problem != standing_.problem && !problem.empty())
      log(LogLevel::warn, "version {} stays in use: {}", standing_.version, problem);
    standing_.problem = std::move(problem);
    const double pause_s = standing_.problem.empty() ? options_.poll_s : std::max(1.0, options_.poll_s);
    changed_.wait_for(lock, std::chrono::duration<double>(pause_s), [this] { return ends_; });
  }
}

// Takes up the newest version, when there is a newer one.
Status ServedModel::look() {
  auto before = state();
  const int64_t number = recsys_train::newest_exported_version(options_.folder);
  if (number == 0 || (before && before->version.number == number)) return {};
  TESSERA_ASSIGN_OR_RETURN(ExportedVersion newest,
                           recsys_train::read_exported_version(options_.folder, number));
  std::shared_ptr<const State> next;
  int64_t applied = 1;
  if (before && before->version.number >= newest.base && !starts_over_) {
    starts_over_ = true;  // unless all goes well, nobody knows what the rows are a version of
    auto state = std::make_shared<State>();
    state->model = before->model;
    state->rows = before->rows;
    TESSERA_ASSIGN_OR_RETURN(state->weights, recsys_train::make_dense_model(*before->model));
    TESSERA_RETURN_IF_ERROR(
        recsys_train::read_dense(options_.folder / newest.dense, state->weights->parameters()));
    applied = newest.number - before->version.number;
    TESSERA_RETURN_IF_ERROR(catch_up(*state, before->version.number, newest));
    state->version = std::move(newest);
    next = std::move(state);
  } else {
    TESSERA_ASSIGN_OR_RETURN(next, start_over(newest));
  }
  starts_over_ = false;
  std::lock_guard lock(mutex_);
  state_ = std::move(next);
  standing_.ready = true;
  standing_.version = state_->version.number;
  standing_.step = state_->version.step;
  standing_.time = state_->version.time;
  standing_.applied_at = unix_time();
  standing_.versions += applied;
  return {};
}

Result<std::shared_ptr<const ServedModel::State>> ServedModel::start_over(const ExportedVersion& newest) const {
  TESSERA_ASSIGN_OR_RETURN(ExportedModel model, recsys_train::read_exported_model(options_.folder));
  auto state = std::make_shared<State>();
  TESSERA_ASSIGN_OR_RETURN(ExportedVersion base,
                           recsys_train::read_exported_version(options_.folder, newest.base));
  const auto servers = static_cast<int64_t>(base.rows.size());
  TESSERA_ASSIGN_OR_RETURN(state->rows, recsys::Replica::create(model.store_groups, servers));
  TESSERA_ASSIGN_OR_RETURN(state->weights, recsys_train::make_dense_model(model));
  state->model = std::make_shared<const ExportedModel>(std::move(model));
  TESSERA_RETURN_IF_ERROR(
      recsys_train::read_dense(options_.folder / newest.dense, state->weights->parameters()));
  TESSERA_RETURN_IF_ERROR(catch_up(*state, newest.base - 1, newest));
  state->version = newest;
  return std::shared_ptr<const State>(std::move(state));
}

// Applies the versions after `from`.
Status ServedModel::catch_up(const State& state, int64_t from, const ExportedVersion& newest) const {
  for (int64_t number = from + 1; number <= newest.number; ++number) {
    TESSERA_ASSIGN_OR_RETURN(ExportedVersion version,
                             recsys_train::read_exported_version(options_.folder, number));
    if (static_cast<int64_t>(version.rows.size()) != state.rows->num_sources())
      return make_error(ErrorCode::data_loss, "version {} has rows of {} servers, the one before has {}",
                        number, version.rows.size(), state.rows->num_sources());
    for (size_t s = 0; s < version.rows.size(); ++s)
      TESSERA_RETURN_IF_ERROR(
          state.rows->apply(static_cast<int64_t>(s), (options_.folder / version.rows[s]).string()));
  }
  return {};
}

}  // namespace tessera::recsys_serve
