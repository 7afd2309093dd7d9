#include "plan/report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace tessera::plan {
namespace {

using nlohmann::json;

constexpr double kGiB = 1024.0 * 1024 * 1024;

json layout_json(const Prediction& p) {
  const Layout& layout = p.layout;
  json order = json::array();
  for (Axis axis : layout.order) order.push_back(to_string(axis));
  return {{"dp", layout.dp},
          {"fsdp", layout.fsdp},
          {"tp", layout.tp},
          {"pp", layout.pp},
          {"cp", layout.cp},
          {"ep", layout.ep},
          {"order", order},
          {"schedule", to_string(layout.schedule)},
          {"virtual_stages", layout.virtual_stages},
          {"micro_batch", p.work.micro_batch},
          {"recompute", to_string(layout.recompute)},
          {"precision", to_string(p.work.precision)},
          {"text", to_string(layout)}};
}

json breakdown_json(const StepTime& time) {
  return {{"compute", time.seconds.compute},
          {"tp", time.seconds.tp},
          {"cp", time.seconds.cp},
          {"ep", time.seconds.ep},
          {"pp", time.pp},
          {"dp", time.seconds.dp},
          {"bubble", time.bubble},
          {"optimizer", time.optimizer},
          {"host", time.seconds.host}};
}

json memory_json(const Prediction& p) {
  json by_stage = json::array(), parts = json::array();
  for (const MemoryByClass& m : p.memory_by_stage) {
    by_stage.push_back(m.total() / kGiB);
    parts.push_back({{"parameters", m.weights / kGiB},
                     {"gathered", m.gathered / kGiB},
                     {"optimizer", m.optimizer / kGiB},
                     {"gradients", m.gradients / kGiB},
                     {"activations", m.activations / kGiB},
                     {"workspace", m.workspace / kGiB}});
  }
  return {{"peak", p.peak_bytes / kGiB}, {"by_stage", by_stage}, {"parts_by_stage", parts}};
}

}  // namespace

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, ++unit;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : bytes < 10 ? 2 : 1, units[unit]);
}

std::string seconds_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  return seconds < 1000 ? fmt::format("{:.3g} s", seconds) : fmt::format("{:.0f} s", seconds);
}

std::string table(const Request& request, const SearchResult& result, int64_t top) {
  std::string out =
      fmt::format("{:>4}  {:<40} {:>5} {:>10} {:>12} {:>11}  {:<30} {}\n", "rank", "layout", "micro", "step",
                  "tokens/s", "memory/rank", "bound by", "against the one above");
  size_t count = std::min(result.ranked.size(), static_cast<size_t>(top));
  for (size_t i = 0; i < count; ++i) {
    const Prediction& p = result.ranked[i];
    out +=
        fmt::format("{:>4}  {:<40} {:>5} {:>10} {:>12.0f} {:>11}  {:<30} {}\n", i + 1, to_string(p.layout),
                    p.work.micro_batch, seconds_text(p.step_time_s), p.tokens_per_s, bytes_text(p.peak_bytes),
                    bound_by(p), i == 0 ? "" : why_slower(p, result.ranked[i - 1]));
  }
  out += fmt::format(
      "{} layouts fit, of {} candidates ({} predicted, {} invalid for this model and work), in {}\n",
      result.ranked.size(), result.space, result.evaluated, result.pruned, seconds_text(result.seconds));
  out += fmt::format("times are within {:.0f} % of these figures in 90 of 100 cases: {}\n",
                     100 * request.cluster.relative_error, request.cluster.name);
  return out;
}

std::string details(const Request& request, const Prediction& p) {
  const StepTime& t = p.time;
  std::string out =
      fmt::format("{} on {} x {}\n", to_string(p.layout), p.layout.processes(), request.cluster.name);
  out += fmt::format("  step {} ({} to {}), {:.0f} tokens/s, {:.4g} TFLOP/s per device{}\n",
                     seconds_text(p.step_time_s), seconds_text(p.step_time_s_low),
                     seconds_text(p.step_time_s_high), p.tokens_per_s, p.flops_per_s_per_device / 1e12,
                     p.mfu > 0 ? fmt::format(", MFU {:.1f} %", 100 * p.mfu) : "");
  out += fmt::format("  compute {}, tp {}, cp {}, ep {}, dp {}, pp {}, bubble {}, optimizer {}, host {}\n",
                     seconds_text(t.seconds.compute), seconds_text(t.seconds.tp), seconds_text(t.seconds.cp),
                     seconds_text(t.seconds.ep), seconds_text(t.seconds.dp), seconds_text(t.pp),
                     seconds_text(t.bubble), seconds_text(t.optimizer), seconds_text(t.seconds.host));
  for (size_t stage = 0; stage < p.memory_by_stage.size(); ++stage) {
    const MemoryByClass& m = p.memory_by_stage[stage];
    out += fmt::format(
        "  memory of stage {}: {} = weights {} + gathered {} + optimizer {} + gradients {} + activations {} + "
        "workspace {}\n",
        stage, bytes_text(m.total()), bytes_text(m.weights), bytes_text(m.gathered), bytes_text(m.optimizer),
        bytes_text(m.gradients), bytes_text(m.activations), bytes_text(m.workspace));
  }
  return out;
}

json to_json(const Request& request, const Prediction& p) {
  json provenance = json::array();
  for (const auto& [key, source] : request.cluster.provenance)
    provenance.push_back({{"figure", key}, {"source", source}});
  return {{"layout", layout_json(p)},
          {"step_time_s", p.step_time_s},
          {"step_time_s_low", p.step_time_s_low},
          {"step_time_s_high", p.step_time_s_high},
          {"tokens_per_s_per_gpu", p.tokens_per_s / static_cast<double>(p.layout.processes())},
          {"tokens_per_s", p.tokens_per_s},
          {"tflops_per_gpu", p.flops_per_s_per_device / 1e12},
          {"mfu", p.mfu > 0 ? json(p.mfu) : json(nullptr)},
          {"memory_gib", memory_json(p)},
          {"fits", p.fits},
          {"goodput", nullptr},
          {"time_to_train_h", nullptr},
          {"cost_usd", nullptr},
          {"energy_mwh", nullptr},
          {"co2_t", nullptr},
          {"breakdown", breakdown_json(p.time)},
          {"bound_by", bound_by(p)},
          {"provenance", provenance}};
}

json to_json(const Request& request, const SearchResult& result, int64_t top) {
  json out;
  out["results"] = json::array();
  size_t count = std::min(result.ranked.size(), static_cast<size_t>(top));
  for (size_t i = 0; i < count; ++i) out["results"].push_back(to_json(request, result.ranked[i]));
  if (result.ranked.empty()) {
    out["infeasible"] = infeasible_json(result.infeasible);
  }
  out["search"] = {{"space", result.space},
                   {"evaluated", result.evaluated},
                   {"pruned", result.pruned},
                   {"seconds", result.seconds}};
  return out;
}

}  // namespace tessera::plan
