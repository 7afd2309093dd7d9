#include "recsys/row_update.h"

#include <cmath>
#include <numbers>

#include "recsys/hash.h"
#include "recsys/store.h"

namespace tessera::recsys {
namespace {

using Optimizer = OptimizerOptions::Kind;

int64_t padded(int64_t bytes) {
  return (bytes + 3) / 4 * 4;
}

float* scratch(int64_t dim) {
  static thread_local std::vector<float> values;
  if (values.size() < static_cast<size_t>(dim)) values.resize(static_cast<size_t>(dim));
  return values.data();
}

// Never 0, which would round to nearest.
uint32_t rounding_seed(uint64_t id, uint64_t step) {
  return static_cast<uint32_t>(mix64(id ^ mix64(step))) | 1u;
}

double uniform_of(uint64_t random) {
  return (static_cast<double>(random >> 11) + 0.5) * 0x1p-53;
}

// Box and Muller: pairs of normals from pairs of uniforms.
void normal_values(uint64_t key, float mean, float deviation, int64_t dim, float* values) {
  for (int64_t i = 0; i < dim; i += 2) {
    uint64_t pair = static_cast<uint64_t>(i);
    double radius = deviation * std::sqrt(-2 * std::log(uniform_of(mix64(key ^ mix64(pair)))));
    double angle = 2 * std::numbers::pi * uniform_of(mix64(key ^ mix64(pair + 1)));
    values[i] = static_cast<float>(mean + radius * std::cos(angle));
    if (i + 1 < dim) values[i + 1] = static_cast<float>(mean + radius * std::sin(angle));
  }
}

}  // namespace

RecordLayout::RecordLayout(const GroupOptions& group)
    : values_offset(8 + policy_bytes(group)),
      state_offset(values_offset + padded(row_bytes(group))),
      bytes(state_offset + state_bytes(group)) {}

RowUpdate::RowUpdate(const GroupOptions& group, const RowKernels* kernels)
    : group_(group),
      layout_(group),
      kernels_(kernels != nullptr ? kernels : &row_kernels()),
      type_(static_cast<size_t>(group.row_type)),
      copied_floats_(group.row_type == RowType::f32 ? static_cast<size_t>(group.dim) : 0),
      counts_updates_(group.optimizer.kind == Optimizer::adam || group.optimizer.kind == Optimizer::adamw ||
                      group.optimizer.kind == Optimizer::lamb_row),
      base_(constants()) {}

// As torch computes them: in double, then rounded once.
RowStep RowUpdate::constants() const {
  const OptimizerOptions& o = group_.optimizer;
  RowStep step{};
  step.learning_rate = static_cast<float>(o.learning_rate);
  step.weight_decay = static_cast<float>(o.weight_decay);
  step.epsilon = static_cast<float>(o.epsilon);
  step.momentum = static_cast<float>(o.momentum);
  step.nesterov = o.nesterov;
  step.accumulate_after = o.accumulate_after;
  step.beta1 = static_cast<float>(o.beta1);
  step.beta2 = static_cast<float>(o.beta2);
  step.one_minus_beta1 = static_cast<float>(1 - o.beta1);
  step.one_minus_beta2 = static_cast<float>(1 - o.beta2);
  step.ftrl_beta = static_cast<float>(o.ftrl_beta);
  step.l1 = static_cast<float>(o.l1);
  step.l2 = static_cast<float>(o.l2);
  return step;
}

RowStep RowUpdate::step_of(const PutOptions& options) const {
  RowStep step = base_;
  const OptimizerOptions& o = group_.optimizer;
  step.rate = o.learning_rate * options.learning_rate_scale;
  step.learning_rate = static_cast<float>(step.rate);
  step.decay_factor = static_cast<float>(1 - step.rate * o.weight_decay);
  step.ftrl_alpha_inverse = static_cast<float>(1 / step.rate);
  return step;
}

// Adam's bias corrections for a row that was updated that often.
RowStep RowUpdate::corrected(RowStep step, uint32_t updates) const {
  const OptimizerOptions& o = group_.optimizer;
  double first = 1 - std::pow(o.beta1, updates), second = 1 - std::pow(o.beta2, updates);
  step.first_correction = static_cast<float>(first);
  step.step_size = static_cast<float>(step.rate / first);
  step.root_correction = static_cast<float>(std::sqrt(second));
  return step;
}

void RowUpdate::raw_initial(uint64_t id, float* values) const {
  const InitOptions& init = group_.init;
  uint64_t key = mix64(id ^ mix64(init.seed));
  using Kind = InitOptions::Kind;
  if (init.kind == Kind::normal) return normal_values(key, init.mean, init.deviation, group_.dim, values);
  InitStep step{.kind = static_cast<int32_t>(init.kind == Kind::uniform ? 2 : 0)};
  step.key_low = static_cast<uint32_t>(key);
  step.key_high = static_cast<uint32_t>(key >> 32);
  step.base = init.kind == Kind::uniform ? init.low : init.kind == Kind::constant ? init.value : 0.0f;
  step.width = init.high - init.low;
  kernels_->initial(step, group_.dim, values);
}

void RowUpdate::fresh_state(std::byte* record) const {
  std::byte* state = record + layout_.state_offset;
  std::memset(state, 0, static_cast<size_t>(layout_.bytes - layout_.state_offset));
  Optimizer kind = group_.optimizer.kind;
  if (kind != Optimizer::adagrad && kind != Optimizer::adagrad_row) return;
  float accumulator = static_cast<float>(group_.optimizer.initial_accumulator);
  for (int64_t i = 0; i < state_bytes(group_) / 4; ++i)
    std::memcpy(state + 4 * i, &accumulator, sizeof accumulator);
}

void RowUpdate::create(uint64_t id, std::byte* record) const {
  float* values = scratch(group_.dim);
  raw_initial(id, values);
  std::memset(record, 0, static_cast<size_t>(layout_.state_offset));
  std::memcpy(record, &id, sizeof id);
  kernels_->store[type_](values, group_.dim, record + layout_.values_offset, 0);
  fresh_state(record);
}

void RowUpdate::initial_values(uint64_t id, float* values) const {
  raw_initial(id, values);
  if (group_.row_type == RowType::f32) return;
  static thread_local std::vector<std::byte> row;
  row.resize(static_cast<size_t>(padded(row_bytes(group_))));
  kernels_->store[type_](values, group_.dim, row.data(), 0);
  kernels_->load[type_](row.data(), group_.dim, values);
}

void RowUpdate::write(std::byte* record, const float* values) const {
  kernels_->store[type_](values, group_.dim, record + layout_.values_offset, 0);
  fresh_state(record);
}

bool RowUpdate::update(std::byte* record, const float* gradient, const RowStep& step, uint64_t number) const {
  auto apply = kernels_->update[static_cast<size_t>(group_.optimizer.kind)];
  std::byte* row = record + layout_.values_offset;
  float* state = reinterpret_cast<float*>(record + layout_.state_offset);
  float* values = group_.row_type == RowType::f32 ? reinterpret_cast<float*>(row) : scratch(group_.dim);
  if (group_.row_type != RowType::f32) kernels_->load[type_](row, group_.dim, values);
  if (counts_updates_) {
    std::byte* counter = record + layout_.bytes - 4;
    uint32_t updates;
    std::memcpy(&updates, counter, sizeof updates);
    updates += updates != UINT32_MAX;
    if (!apply(corrected(step, updates), group_.dim, values, state, gradient)) return false;
    std::memcpy(counter, &updates, sizeof updates);
  } else if (!apply(step, group_.dim, values, state, gradient)) {
    return false;
  }
  if (group_.row_type == RowType::f32) return true;
  uint32_t random = group_.stochastic_rounding ? rounding_seed(id_of(record), number) : 0;
  kernels_->store[type_](values, group_.dim, row, random);
  return true;
}

float RowUpdate::norm_squared(const std::byte* record) const {
  float* values = scratch(group_.dim);
  read(record, values);
  return kernels_->sum_of_squares(values, group_.dim);
}

}  // namespace tessera::recsys
