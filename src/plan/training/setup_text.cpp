// Text forms of the layout of a training run.
#include <charconv>
#include <functional>
#include <map>

#include "core/nearest.h"
#include "plan/training/setup.h"
#include "schedule/schedule.h"

namespace tessera::plan {
namespace {

template <class T>
struct Names {
  std::vector<std::pair<const char*, T>> pairs;
  const char* of(T value) const {
    for (const auto& [name, known] : pairs)
      if (known == value) return name;
    return "unknown";
  }
  Result<T> parse(const char* what, std::string_view text) const {
    std::vector<std::string> known;
    for (const auto& [name, value] : pairs) {
      if (name == text) return value;
      known.emplace_back(name);
    }
    return invalid("layout: {}={}: expected one of {}{}", what, text, fmt::join(known, ", "),
                   did_you_mean(text, known));
  }
};

const Names<Sharding>& shardings() {
  static const Names<Sharding> names = {{{"none", Sharding::none},
                                         {"optimizer", Sharding::optimizer},
                                         {"gradients", Sharding::gradients},
                                         {"parameters", Sharding::parameters},
                                         {"0", Sharding::none},
                                         {"1", Sharding::optimizer},
                                         {"2", Sharding::gradients},
                                         {"3", Sharding::parameters}}};
  return names;
}
const Names<Framework>& frameworks() {
  static const Names<Framework> names = {{{"megatron", Framework::megatron},
                                          {"deepspeed", Framework::deepspeed},
                                          {"fsdp1", Framework::fsdp1},
                                          {"fsdp2", Framework::fsdp2},
                                          {"jax", Framework::jax}}};
  return names;
}
const Names<TrainingPrecision>& precisions() {
  static const Names<TrainingPrecision> names = {{{"float32", TrainingPrecision::float32},
                                                  {"fp16", TrainingPrecision::fp16},
                                                  {"bf16", TrainingPrecision::bf16},
                                                  {"fp8", TrainingPrecision::fp8},
                                                  {"fp8_block", TrainingPrecision::fp8_block},
                                                  {"mxfp8", TrainingPrecision::mxfp8},
                                                  {"nvfp4", TrainingPrecision::nvfp4}}};
  return names;
}
const Names<PipelineKind>& pipelines() {
  static const Names<PipelineKind> names = {{{"gpipe", PipelineKind::gpipe},
                                             {"1f1b", PipelineKind::one_f_one_b},
                                             {"zb-h1", PipelineKind::zb_h1},
                                             {"zb-h2", PipelineKind::zb_h2},
                                             {"zb-v", PipelineKind::zb_v},
                                             {"v-half", PipelineKind::v_half},
                                             {"v-min", PipelineKind::v_min},
                                             {"dualpipe", PipelineKind::dualpipe}}};
  return names;
}

struct Module {
  const char* name;
  bool Recomputation::*field;
};
constexpr Module kModules[] = {
    {"core_attn", &Recomputation::core_attention},
    {"layernorm", &Recomputation::norm},
    {"mla_up_proj", &Recomputation::mla_up},
    {"mlp", &Recomputation::mlp},
    {"moe", &Recomputation::moe},
    {"moe_act", &Recomputation::moe_act},
    {"shared_experts", &Recomputation::shared_experts},
    {"cheap_ops", &Recomputation::cheap_ops},
};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

Result<int64_t> parse_count(std::string_view key, std::string_view value) {
  int64_t count = 0;
  auto [end, failure] = std::from_chars(value.data(), value.data() + value.size(), count);
  if (failure != std::errc() || end != value.data() + value.size() || count < 1 || count > (1 << 24))
    return invalid("layout: {}={}: expected a positive integer", key, value);
  return count;
}

Result<bool> parse_switch(std::string_view key, std::string_view value) {
  if (value == "on" || value == "true") return true;
  if (value == "off" || value == "false") return false;
  return invalid("layout: {}={}: expected on or off", key, value);
}

Status parse_modules(std::string_view text, Recomputation& out) {
  for (std::string_view part : split(text, '+')) {
    bool found = false;
    for (const Module& module : kModules)
      if (part == module.name) out.*module.field = found = true;
    std::vector<std::string> known;
    for (const Module& module : kModules) known.emplace_back(module.name);
    if (!found)
      return invalid("layout: recompute={}: unknown module '{}'; known: none, full, selective, {}{}", text,
                     part, fmt::join(known, ", "), did_you_mean(part, known));
  }
  return {};
}

Status parse_full(std::string_view detail, Recomputation& out) {
  size_t equals = detail.find('=');
  std::string_view key = detail.substr(0, equals);
  std::string_view value = equals == std::string_view::npos ? "" : detail.substr(equals + 1);
  TESSERA_ASSIGN_OR_RETURN(int64_t count, parse_count(fmt::format("recompute=full:{}", key), value));
  if (key == "chunk") return out.uniform_chunk = count, Status{};
  if (key != "first" && key != "every")
    return invalid("layout: recompute=full:{}: expected full:first=N, full:every=N or full:chunk=N", detail);
  out.full = key == "first" ? Recomputation::Full::first : Recomputation::Full::every;
  out.layers = count;
  return {};
}

using Setter = std::function<Status(std::string_view)>;

Result<std::array<Axis, 5>> parse_axes(std::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(Layout layout, parse_layout(fmt::format("order={}", text)));
  return layout.order;
}

// One setter for each key; they write into `l`.
std::map<std::string, Setter, std::less<>> setters(TrainingLayout& l) {
  std::map<std::string, Setter, std::less<>> out;
  const std::pair<const char*, int64_t*> counts[] = {{"dp", &l.dp},
                                                     {"fsdp", &l.fsdp},
                                                     {"tp", &l.tp},
                                                     {"pp", &l.pp},
                                                     {"cp", &l.cp},
                                                     {"ep", &l.ep},
                                                     {"etp", &l.etp},
                                                     {"virtual_stages", &l.virtual_stages},
                                                     {"micro_batch", &l.micro_batch}};
  for (const auto& [name, field] : counts)
    out[name] = [name = name, field = field](std::string_view value) -> Status {
      TESSERA_ASSIGN_OR_RETURN(*field, parse_count(name, value));
      return {};
    };
  out["order"] = [&l](std::string_view value) -> Status {
    TESSERA_ASSIGN_OR_RETURN(l.order, parse_axes(value));
    return {};
  };
  out["schedule"] = [&l](std::string_view value) -> Status {
    TESSERA_ASSIGN_OR_RETURN(l.schedule, parse_pipeline_kind(value));
    return {};
  };
  out["recompute"] = [&l](std::string_view value) -> Status {
    TESSERA_ASSIGN_OR_RETURN(l.recompute, parse_recomputation(value));
    return {};
  };
  out["sharding"] = [&l](std::string_view value) -> Status {
    TESSERA_ASSIGN_OR_RETURN(l.sharding, parse_sharding(value));
    return {};
  };
  const std::pair<const char*, bool*> switches[] = {{"sp", &l.sequence_parallel},
                                                    {"keep_gathered", &l.keep_gathered}};
  for (const auto& [name, field] : switches)
    out[name] = [name = name, field = field](std::string_view value) -> Status {
      TESSERA_ASSIGN_OR_RETURN(*field, parse_switch(name, value));
      return {};
    };
  return out;
}

}  // namespace

const char* to_string(Sharding sharding) {
  return shardings().of(sharding);
}
const char* to_string(Framework framework) {
  return frameworks().of(framework);
}
const char* to_string(TrainingPrecision precision) {
  return precisions().of(precision);
}
const char* to_string(PipelineKind kind) {
  return pipelines().of(kind);
}
Result<TrainingPrecision> parse_training_precision(std::string_view text) {
  return precisions().parse("precision", text);
}
Result<PipelineKind> parse_pipeline_kind(std::string_view text) {
  std::string name(text);
  std::replace(name.begin(), name.end(), '_', '-');
  return pipelines().parse("schedule", name);
}
Result<std::vector<PipelineKind>> parse_pipeline_kinds(std::string_view text) {
  std::vector<PipelineKind> kinds;
  if (text == "all") {
    for (const auto& [name, kind] : pipelines().pairs)
      if (has_table(kind)) kinds.push_back(kind);
    return kinds;
  }
  for (std::string_view part : split(text, ',')) {
    TESSERA_ASSIGN_OR_RETURN(PipelineKind kind, parse_pipeline_kind(part));
    kinds.push_back(kind);
  }
  if (kinds.empty()) return invalid("schedules: expected names joined by commas, or all");
  return kinds;
}
Result<Sharding> parse_sharding(std::string_view text) {
  return shardings().parse("sharding", text);
}
bool is_8_bit_or_less(TrainingPrecision precision) {
  return precision > TrainingPrecision::bf16;
}

Result<Recomputation> parse_recomputation(std::string_view text) {
  Recomputation out;
  if (text == "none") return out;
  if (text == "selective") return out.core_attention = true, out;
  if (text.starts_with("full")) {
    out.full = Recomputation::Full::all;
    if (text.size() > 4 && text[4] == ':') TESSERA_RETURN_IF_ERROR(parse_full(text.substr(5), out));
    if (text.size() == 4 || text[4] == ':') return out;
  }
  TESSERA_RETURN_IF_ERROR(parse_modules(text, out));
  return out;
}

std::string to_string(const Recomputation& recompute) {
  switch (recompute.full) {
    case Recomputation::Full::all:
      return recompute.uniform_chunk == 1 ? "full" : fmt::format("full:chunk={}", recompute.uniform_chunk);
    case Recomputation::Full::first:
      return fmt::format("full:first={}", recompute.layers);
    case Recomputation::Full::every:
      return fmt::format("full:every={}", recompute.layers);
    case Recomputation::Full::none:
      break;
  }
  std::string text;
  for (const Module& module : kModules)
    if (recompute.*module.field) text += (text.empty() ? "" : "+") + std::string(module.name);
  return text.empty() ? "none" : text;
}

Result<TrainingLayout> parse_training_layout(std::string_view text, TrainingLayout base) {
  auto known = setters(base);
  for (std::string_view part : split(text, ',')) {
    size_t equals = part.find('=');
    if (equals == std::string_view::npos)
      return invalid("layout: '{}' is not key=value, as in dp=2,tp=8", part);
    auto setter = known.find(part.substr(0, equals));
    if (setter == known.end()) {
      std::vector<std::string> names;
      for (const auto& [name, ignored] : known) names.push_back(name);
      return invalid("layout: unknown key '{}' in '{}'; known: {}{}", part.substr(0, equals), text,
                     fmt::join(names, ", "), did_you_mean(part.substr(0, equals), names));
    }
    TESSERA_RETURN_IF_ERROR(setter->second(part.substr(equals + 1)));
  }
  return base;
}

std::string to_string(const TrainingLayout& l) {
  std::string text = fmt::format("dp={}", l.dp);
  auto degree = [&](const char* key, int64_t value, int64_t usual) {
    if (value != usual) text += fmt::format(",{}={}", key, value);
  };
  degree("fsdp", l.fsdp, 1);
  degree("tp", l.tp, 1);
  degree("pp", l.pp, 1);
  degree("cp", l.cp, 1);
  degree("ep", l.ep, 1);
  degree("etp", l.etp, 0);
  if (l.schedule != PipelineKind::one_f_one_b) text += fmt::format(",schedule={}", to_string(l.schedule));
  degree("virtual_stages", l.virtual_stages, 1);
  degree("micro_batch", l.micro_batch, 1);
  if (l.recompute != Recomputation{}) text += fmt::format(",recompute={}", to_string(l.recompute));
  if (l.sequence_parallel) text += ",sp=on";
  if (l.sharding != Sharding::optimizer) text += fmt::format(",sharding={}", to_string(l.sharding));
  if (l.keep_gathered) text += ",keep_gathered=on";
  Layout order;
  order.order = l.order;
  if (l.order != Layout{}.order) text += "," + tessera::to_string(order).substr(5);
  return text;
}

}  // namespace tessera::plan
