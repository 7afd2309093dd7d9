#include "layout/layout.h"

#include <algorithm>
#include <bit>
#include <charconv>

#include "core/nearest.h"

namespace tessera {
namespace {

constexpr const char* kAxisNames[] = {"tp", "cp", "fsdp", "dp", "pp"};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

Result<int64_t> parse_degree(std::string_view key, std::string_view value) {
  int64_t degree = 0;
  auto [end, failure] = std::from_chars(value.data(), value.data() + value.size(), degree);
  if (failure != std::errc() || end != value.data() + value.size() || degree < 1 || degree > (1 << 24))
    return invalid("layout: {}={}: expected a positive integer", key, value);
  return degree;
}

Result<Axis> parse_axis(std::string_view text) {
  for (int i = 0; i < 5; ++i)
    if (text == kAxisNames[i]) return static_cast<Axis>(i);
  return invalid("layout: order names '{}', which is no axis; expected dp, fsdp, tp, pp, cp", text);
}

Result<std::array<Axis, 5>> parse_order(std::string_view text) {
  std::array<Axis, 5> order{};
  auto parts = split(text, '-');
  if (parts.size() != 5)
    return invalid("layout: order={}: expected all five axes, such as tp-cp-fsdp-dp-pp", text);
  for (size_t i = 0; i < 5; ++i) {
    TESSERA_ASSIGN_OR_RETURN(order[i], parse_axis(parts[i]));
    if (std::count(order.begin(), order.begin() + static_cast<long>(i), order[i]))
      return invalid("layout: order={}: {} appears twice", text, parts[i]);
  }
  return order;
}

std::string order_text(const std::array<Axis, 5>& order) {
  std::string text;
  for (Axis axis : order) text += (text.empty() ? "" : "-") + std::string(to_string(axis));
  return text;
}

bool power_of_two(int64_t n) {
  return std::has_single_bit(static_cast<uint64_t>(n));
}

// One rule of validate(): `what` must be a multiple of `divisor`.
Status divides(const char* name, int64_t divisor, const char* what, int64_t dividend) {
  if (dividend % divisor == 0) return {};
  return invalid("layout: {}={} does not divide {} = {}", name, divisor, what, dividend);
}

Status validate_blocks(const ModelSpec& model, const Work& work, const Layout& layout) {
  TESSERA_RETURN_IF_ERROR(divides("tp", layout.tp, "tp_blocks", work.tp_blocks));
  if (!power_of_two(work.tp_blocks / layout.tp))
    return invalid("layout: tp={} with tp_blocks={}: their quotient must be a power of two", layout.tp,
                   work.tp_blocks);
  TESSERA_RETURN_IF_ERROR(divides("tp*cp", layout.tp * layout.cp, "seq_chunks", work.seq_chunks));
  if (!power_of_two(work.seq_chunks))
    return invalid("work: seq_chunks={} is not a power of two", work.seq_chunks);
  TESSERA_RETURN_IF_ERROR(
      divides("seq_chunks", work.seq_chunks, "tokens of a micro-batch", work.micro_batch_tokens()));
  TESSERA_RETURN_IF_ERROR(divides("tp_blocks", work.tp_blocks, "attention heads", model.heads));
  TESSERA_RETURN_IF_ERROR(divides("tp_blocks", work.tp_blocks, "KV heads", model.kv_heads));
  if (model.moe.experts == 0 || !model.moe.dense_layers.empty())
    TESSERA_RETURN_IF_ERROR(divides("tp_blocks", work.tp_blocks, "FFN width", model.ffn));
  if (model.moe.experts > 0)
    TESSERA_RETURN_IF_ERROR(divides("tp_blocks", work.tp_blocks, "expert FFN width", model.moe.ffn));
  return {};
}

Status validate_experts(const ModelSpec& model, const Layout& layout) {
  if (layout.ep == 1) return {};
  if (model.moe.experts == 0) return invalid("layout: ep={} but the model has no experts", layout.ep);
  TESSERA_RETURN_IF_ERROR(divides("ep", layout.ep, "experts", model.moe.experts));
  TESSERA_RETURN_IF_ERROR(divides("ep", layout.ep, "dp*fsdp*cp", layout.dp * layout.fsdp * layout.cp));
  if (!power_of_two(layout.ep)) return invalid("layout: ep={} is not a power of two", layout.ep);
  if (layout.ep < layout.fsdp) return divides("ep", layout.ep, "fsdp", layout.fsdp);
  return divides("fsdp", layout.fsdp, "ep", layout.ep);
}

}  // namespace

const char* to_string(Axis axis) {
  return kAxisNames[static_cast<int>(axis)];
}
const char* to_string(PipelineSchedule schedule) {
  return schedule == PipelineSchedule::gpipe ? "gpipe" : "1f1b";
}
const char* to_string(Recompute recompute) {
  return recompute == Recompute::none ? "none" : "full";
}
const char* to_string(Precision precision) {
  return precision == Precision::float32 ? "float32" : "bf16";
}
const char* to_string(Numerics numerics) {
  return numerics == Numerics::exact ? "exact" : "fast";
}

Result<PipelineSchedule> parse_schedule(std::string_view text) {
  if (text == "gpipe") return PipelineSchedule::gpipe;
  if (text == "1f1b") return PipelineSchedule::one_f_one_b;
  return invalid(
      "layout: schedule={}: the trainer runs gpipe or 1f1b; zb-h1, zb-h2, zb-v, v-half, v-min and dualpipe can "
      "be planned for GPU clusters only",
      text);
}

Result<Recompute> parse_recompute(std::string_view text) {
  if (text == "none") return Recompute::none;
  if (text == "full") return Recompute::full;
  return invalid("layout: recompute={}: expected none or full", text);
}

int64_t Layout::degree(Axis axis) const {
  switch (axis) {
    case Axis::tp:
      return tp;
    case Axis::cp:
      return cp;
    case Axis::fsdp:
      return fsdp;
    case Axis::dp:
      return dp;
    case Axis::pp:
      return pp;
  }
  return 1;
}

Result<Layout> parse_layout(std::string_view text) {
  Layout layout;
  bool replicas_given = false, ep_given = false;
  std::vector<std::string_view> seen;
  for (std::string_view part : split(text, ',')) {
    size_t equals = part.find('=');
    if (equals == std::string_view::npos)
      return invalid("layout: '{}' is not key=value, as in fsdp=2,tp=2", part);
    std::string_view key = part.substr(0, equals), value = part.substr(equals + 1);
    if (std::count(seen.begin(), seen.end(), key))
      return invalid("layout: {} is given twice in '{}'", key, text);
    seen.push_back(key);
    int64_t* degree = key == "dp"               ? &layout.dp
                      : key == "fsdp"           ? &layout.fsdp
                      : key == "tp"             ? &layout.tp
                      : key == "pp"             ? &layout.pp
                      : key == "cp"             ? &layout.cp
                      : key == "ep"             ? &layout.ep
                      : key == "virtual_stages" ? &layout.virtual_stages
                                                : nullptr;
    if (degree) {
      TESSERA_ASSIGN_OR_RETURN(*degree, parse_degree(key, value));
      replicas_given |= key == "dp" || key == "fsdp" || key == "cp";
      ep_given |= key == "ep";
    } else if (key == "schedule") {
      TESSERA_ASSIGN_OR_RETURN(layout.schedule, parse_schedule(value));
    } else if (key == "recompute") {
      TESSERA_ASSIGN_OR_RETURN(layout.recompute, parse_recompute(value));
    } else if (key == "order") {
      TESSERA_ASSIGN_OR_RETURN(layout.order, parse_order(value));
    } else {
      std::string hint = did_you_mean(
          key, {"dp", "fsdp", "tp", "pp", "cp", "ep", "schedule", "recompute", "virtual_stages", "order"});
      return invalid(
          "layout: unknown key '{}' in '{}'; known: dp, fsdp, tp, pp, cp, ep, schedule, virtual_stages, "
          "recompute, order{}",
          key, text, hint);
    }
  }
  if (ep_given && !replicas_given) layout.fsdp = layout.ep;
  return layout;
}

std::string to_string(const Layout& layout) {
  std::string text;
  auto add = [&](const char* key, const std::string& value) {
    text += fmt::format("{}{}={}", text.empty() ? "" : ",", key, value);
  };
  auto degree = [&](const char* key, int64_t value) {
    if (value != 1) add(key, std::to_string(value));
  };
  degree("dp", layout.dp);
  degree("fsdp", layout.fsdp);
  degree("tp", layout.tp);
  degree("pp", layout.pp);
  degree("cp", layout.cp);
  if (text.empty()) text = "dp=1";
  degree("ep", layout.ep);
  Layout defaults;
  if (layout.schedule != defaults.schedule) add("schedule", to_string(layout.schedule));
  degree("virtual_stages", layout.virtual_stages);
  if (layout.recompute != defaults.recompute) add("recompute", to_string(layout.recompute));
  if (layout.order != defaults.order) add("order", order_text(layout.order));
  return text;
}

Status validate(const ModelSpec& model, const Work& work, const Layout& layout, bool trainable) {
  if (work.global_batch % work.micro_batch != 0)
    return invalid("work: micro_batch={} does not divide global_batch={}", work.micro_batch, work.global_batch);
  TESSERA_RETURN_IF_ERROR(
      divides("dp*fsdp", layout.replicas(), "micro-batches of a step", work.micro_batches()));
  if (layout.pp * layout.virtual_stages > model.layers)
    return invalid("layout: pp={} needs at least as many layers; the model has {}",
                   layout.pp * layout.virtual_stages, model.layers);
  TESSERA_RETURN_IF_ERROR(validate_experts(model, layout));
  TESSERA_RETURN_IF_ERROR(validate_blocks(model, work, layout));
  if (trainable && layout.cp > 1)
    return invalid("layout: cp={} can be planned but not trained yet; use tp to split sequences", layout.cp);
  if (trainable && layout.virtual_stages > 1)
    return invalid("layout: virtual_stages={} can be planned but not trained yet", layout.virtual_stages);
  return {};
}

int64_t& Coordinate::operator[](Axis axis) {
  switch (axis) {
    case Axis::tp:
      return tp;
    case Axis::cp:
      return cp;
    case Axis::fsdp:
      return fsdp;
    case Axis::dp:
      return dp;
    case Axis::pp:
      break;
  }
  return pp;
}
int64_t Coordinate::operator[](Axis axis) const {
  return const_cast<Coordinate&>(*this)[axis];
}

Coordinate coordinate_of(const Layout& layout, int64_t rank) {
  Coordinate c;
  for (Axis axis : layout.order) {
    c[axis] = rank % layout.degree(axis);
    rank /= layout.degree(axis);
  }
  return c;
}

int64_t rank_of(const Layout& layout, const Coordinate& coordinate) {
  int64_t rank = 0, stride = 1;
  for (Axis axis : layout.order) {
    rank += coordinate[axis] * stride;
    stride *= layout.degree(axis);
  }
  return rank;
}

std::vector<int64_t> ranks_along(const Layout& layout, int64_t rank, const std::vector<Axis>& axes) {
  Coordinate base = coordinate_of(layout, rank);
  int64_t count = 1;
  for (Axis axis : axes) count *= layout.degree(axis);
  std::vector<int64_t> ranks;
  for (int64_t i = 0; i < count; ++i) {
    Coordinate c = base;
    int64_t rest = i;
    for (Axis axis : axes) {
      c[axis] = rest % layout.degree(axis);
      rest /= layout.degree(axis);
    }
    ranks.push_back(rank_of(layout, c));
  }
  return ranks;
}

std::vector<int64_t> replica_ranks(const Layout& layout, int64_t rank) {
  return ranks_along(layout, rank, {Axis::fsdp, Axis::dp});
}

std::vector<int64_t> expert_ranks(const Layout& layout, int64_t rank) {
  auto replicas = replica_ranks(layout, rank);
  int64_t first = replica_of(layout, coordinate_of(layout, rank)) / layout.ep * layout.ep;
  return {replicas.begin() + first, replicas.begin() + first + layout.ep};
}

std::vector<int64_t> expert_replica_ranks(const Layout& layout, int64_t rank) {
  auto replicas = replica_ranks(layout, rank);
  std::vector<int64_t> ranks;
  for (int64_t i = expert_place(layout, coordinate_of(layout, rank)); i < layout.replicas(); i += layout.ep)
    ranks.push_back(replicas[static_cast<size_t>(i)]);
  return ranks;
}

LayerRange stage_layers(const ModelSpec& model, const Layout& layout, int64_t stage) {
  int64_t stages = layout.pp * layout.virtual_stages;
  int64_t each = model.layers / stages, more = model.layers % stages;
  int64_t first = stage * each + std::min(stage, more);
  return {first, first + each + (stage < more ? 1 : 0)};
}

}  // namespace tessera
