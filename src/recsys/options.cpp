#include "recsys/options.h"

#include <array>
#include <cmath>

#include "core/nearest.h"

namespace tessera::recsys {
namespace {

constexpr std::array kRowTypes = {"float32", "bf16", "fp16", "int8"};
constexpr std::array kInits = {"zeros", "constant", "uniform", "normal"};
constexpr std::array kOptimizers = {"sgd", "adagrad", "adagrad-row", "adam", "adamw", "ftrl", "lamb-row"};
constexpr std::array kAdmissions = {"all", "probability", "counter", "bloom"};
constexpr std::array kEvictions = {"none", "lru", "lfu", "ttl", "l2-norm", "score"};

template <class Enum, size_t N>
Result<Enum> parse(const char* what, const std::array<const char*, N>& names, std::string_view text) {
  std::vector<std::string> known(names.begin(), names.end());
  for (size_t i = 0; i < N; ++i)
    if (known[i] == text) return static_cast<Enum>(i);
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  return invalid("unknown {} '{}'{}; known: {}", what, text, did_you_mean(text, known), list);
}

Error out_of_range(const GroupOptions& group, const char* field, double got, const char* expected) {
  return invalid("group '{}': {} is {}, expected {}", group.name, field, got, expected);
}

Status validate_optimizer(const GroupOptions& group) {
  const OptimizerOptions& o = group.optimizer;
  if (!(o.learning_rate > 0)) return out_of_range(group, "learning rate", o.learning_rate, "more than 0");
  if (!(o.epsilon >= 0)) return out_of_range(group, "epsilon", o.epsilon, "0 or more");
  if (!(o.momentum >= 0 && o.momentum < 1)) return out_of_range(group, "momentum", o.momentum, "0 to below 1");
  if (!(o.beta1 >= 0 && o.beta1 < 1)) return out_of_range(group, "beta1", o.beta1, "0 to below 1");
  if (!(o.beta2 >= 0 && o.beta2 < 1)) return out_of_range(group, "beta2", o.beta2, "0 to below 1");
  if (!(o.weight_decay >= 0)) return out_of_range(group, "weight decay", o.weight_decay, "0 or more");
  if (!(o.initial_accumulator >= 0))
    return out_of_range(group, "initial accumulator", o.initial_accumulator, "0 or more");
  if (o.nesterov && o.momentum == 0) return invalid("group '{}': nesterov needs a momentum", group.name);
  return {};
}

Status validate_policies(const GroupOptions& group) {
  const AdmissionOptions& a = group.admission;
  if (!(a.probability >= 0 && a.probability <= 1))
    return out_of_range(group, "admission probability", a.probability, "0 to 1");
  if (a.threshold < 1 || a.threshold > 255)
    return out_of_range(group, "admission threshold", a.threshold, "1 to 255");
  if (a.bloom_counters < 1024)
    return out_of_range(group, "bloom counters", static_cast<double>(a.bloom_counters), "1024 or more");
  const EvictionOptions& e = group.eviction;
  if (e.budget_bytes < 0)
    return out_of_range(group, "budget bytes", static_cast<double>(e.budget_bytes), "0 or more");
  if (e.budget_bytes > 0 && e.kind == EvictionOptions::Kind::none)
    return invalid("group '{}': a budget needs an eviction policy: lru, lfu, ttl, l2-norm or score",
                   group.name);
  if (e.kind == EvictionOptions::Kind::ttl && e.ttl_steps == 0)
    return invalid("group '{}': eviction ttl needs ttl_steps", group.name);
  return {};
}

}  // namespace

int64_t row_bytes(const GroupOptions& group) {
  switch (group.row_type) {
    case RowType::f32:
      return 4 * group.dim;
    case RowType::bf16:
    case RowType::f16:
      return 2 * group.dim;
    case RowType::i8:
      return 4 + group.dim;
  }
  return 0;
}

int64_t state_bytes(const GroupOptions& group) {
  using Kind = OptimizerOptions::Kind;
  int64_t element = 4 * group.dim;
  switch (group.optimizer.kind) {
    case Kind::sgd:
      return group.optimizer.momentum != 0 ? element : 0;
    case Kind::adagrad:
      return element;
    case Kind::adagrad_row:
      return 4;
    case Kind::adam:
    case Kind::adamw:
      return 2 * element + 4;
    case Kind::ftrl:
      return 2 * element;
    case Kind::lamb_row:
      return element + 8;
  }
  return 0;
}

int64_t policy_bytes(const GroupOptions& group) {
  using Kind = EvictionOptions::Kind;
  Kind kind = group.eviction.kind;
  return kind == Kind::none || kind == Kind::l2_norm ? 0 : 4;
}

Status validate(const GroupOptions& group) {
  if (group.name.empty()) return invalid("a group has no name");
  if (group.dim < 1 || group.dim > 16384)
    return out_of_range(group, "dim", static_cast<double>(group.dim), "1 to 16384");
  if (group.expected_rows < 0)
    return out_of_range(group, "expected rows", static_cast<double>(group.expected_rows), "0 or more");
  const InitOptions& init = group.init;
  if (!std::isfinite(init.low) || !std::isfinite(init.high) || init.low > init.high)
    return invalid("group '{}': initial values run from {} to {}, expected low <= high", group.name, init.low,
                   init.high);
  if (!std::isfinite(init.mean) || !std::isfinite(init.value) || !(init.deviation >= 0))
    return invalid(
        "group '{}': initial mean, value and deviation must be finite and the deviation not negative",
        group.name);
  TESSERA_RETURN_IF_ERROR(validate_optimizer(group));
  return validate_policies(group);
}

Result<RowType> parse_row_type(std::string_view text) {
  return parse<RowType>("row type", kRowTypes, text);
}
Result<InitOptions::Kind> parse_init(std::string_view text) {
  return parse<InitOptions::Kind>("initial distribution", kInits, text);
}
Result<OptimizerOptions::Kind> parse_optimizer(std::string_view text) {
  return parse<OptimizerOptions::Kind>("optimizer", kOptimizers, text);
}
Result<AdmissionOptions::Kind> parse_admission(std::string_view text) {
  return parse<AdmissionOptions::Kind>("admission", kAdmissions, text);
}
Result<EvictionOptions::Kind> parse_eviction(std::string_view text) {
  return parse<EvictionOptions::Kind>("eviction", kEvictions, text);
}
const char* to_string(RowType type) {
  return kRowTypes[static_cast<size_t>(type)];
}
const char* to_string(InitOptions::Kind kind) {
  return kInits[static_cast<size_t>(kind)];
}
const char* to_string(OptimizerOptions::Kind kind) {
  return kOptimizers[static_cast<size_t>(kind)];
}
const char* to_string(AdmissionOptions::Kind kind) {
  return kAdmissions[static_cast<size_t>(kind)];
}
const char* to_string(EvictionOptions::Kind kind) {
  return kEvictions[static_cast<size_t>(kind)];
}

}  // namespace tessera::recsys
