#include "plan/training/gpu_report.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/numbers.h"
#include "plan/report.h"
#include "plan/training/gpu_candidates.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

constexpr TimePart kParts[] = {
    {"compute", &TrainingBreakdown::compute}, {"tp", &TrainingBreakdown::tp},
    {"cp", &TrainingBreakdown::cp},           {"ep", &TrainingBreakdown::ep},
    {"pp", &TrainingBreakdown::pp},           {"dp", &TrainingBreakdown::dp},
    {"bubble", &TrainingBreakdown::bubble},   {"optimizer", &TrainingBreakdown::optimizer},
    {"host", &TrainingBreakdown::host}};

double devices(const GpuPrediction& one) {
  return static_cast<double>(one.setup.layout.devices());
}

std::string text_of(const GpuPrediction& one) {
  return to_string(one.setup.layout) + (one.switches.empty() ? "" : "," + one.switches);
}

json layout_json(const GpuPrediction& one) {
  const TrainingLayout& layout = one.setup.layout;
  std::string order;
  for (Axis axis : layout.order) order += (order.empty() ? "" : ",") + std::string(to_string(axis));
  return {{"dp", layout.dp},
          {"fsdp", layout.fsdp},
          {"tp", layout.tp},
          {"pp", layout.pp},
          {"cp", layout.cp},
          {"ep", layout.ep},
          {"order", order},
          {"schedule", to_string(layout.schedule)},
          {"virtual_stages", layout.virtual_stages},
          {"micro_batch", layout.micro_batch},
          {"recompute", to_string(layout.recompute)},
          {"sharding", to_string(layout.sharding)},
          {"sequence_parallel", layout.sequence_parallel},
          {"precision", to_string(one.setup.work.precision)},
          {"switches", one.switches},
          {"text", to_string(layout)}};
}

json provenance_json(const GpuPlanRequest& request) {
  json list = json::array();
  for (const auto& [figure, source] : gpu_provenance(request))
    list.push_back({{"figure", figure}, {"source", source}});
  return list;
}

json memory_json(const GpuPrediction& one) {
  json by_stage = json::array(), parts = json::array();
  for (const TrainingMemory& stage : one.memory) {
    by_stage.push_back(gib(stage.device));
    parts.push_back({{"parameters", gib(stage.parameters)},
                     {"gathered", gib(stage.gathered)},
                     {"optimizer", gib(stage.optimizer)},
                     {"gradients", gib(stage.gradients)},
                     {"activations", gib(stage.activations)},
                     {"workspace", gib(stage.workspace)},
                     {"buffers", gib(stage.buffers)},
                     {"overhead", gib(stage.device - stage.allocated())}});
  }
  return {{"peak", gib(one.peak_bytes)}, {"by_stage", by_stage}, {"parts_by_stage", parts}};
}

std::string schedule_names(const GpuPlanRequest& request) {
  std::string names;
  for (PipelineKind kind : schedules_tried(request))
    names += (names.empty() ? "" : ", ") + std::string(to_string(kind));
  return names;
}

struct Loss {
  const char* name;
  double LostTime::*share;
};
constexpr Loss kLosses[] = {{"checkpoint", &LostTime::checkpoint}, {"rework", &LostTime::rework},
                            {"restart", &LostTime::restart},       {"planned", &LostTime::planned},
                            {"waiting", &LostTime::waiting},       {"corruption", &LostTime::corruption},
                            {"stragglers", &LostTime::stragglers}};

json lost_json(const Goodput& goodput) {
  json parts;
  for (const Loss& loss : kLosses) parts[loss.name] = goodput.lost.*loss.share;
  return parts;
}

json causes_json(const Goodput& goodput) {
  json causes;
  for (const FailureCause& cause : failure_causes())
    causes[cause.name] = goodput.interruptions_per_day * cause.share;
  return causes;
}

std::string lost_text(const Goodput& goodput) {
  std::string text;
  for (const Loss& loss : kLosses)
    if (goodput.lost.*loss.share >= 5e-4)
      text += fmt::format("{}{} {:.1f} %", text.empty() ? "; lost: " : ", ", loss.name,
                          100 * goodput.lost.*loss.share);
  return text;
}

json result_json(const GpuPlanRequest& request, const GpuPrediction& one, const GpuPrediction& best) {
  json breakdown;
  for (const TimePart& part : kParts) breakdown[part.name] = one.step.breakdown.*part.seconds;
  bool run = request.tokens > 0;
  auto of_run = [&](double value) { return run ? json(value) : json(nullptr); };
  return {{"layout", layout_json(one)},
          {"step_time_s", one.step.seconds},
          {"step_time_s_low", one.step.low},
          {"step_time_s_high", one.step.high},
          {"tokens_per_s_per_gpu", one.step.tokens_per_s_per_device},
          {"tflops_per_gpu", one.step.tflops_per_device},
          {"mfu", one.step.mfu},
          {"memory_gib", memory_json(one)},
          {"fits", one.fits},
          {"goodput", one.goodput.share},
          {"checkpoint_interval_s", one.goodput.interval_s},
          {"interruptions_per_day", one.goodput.interruptions_per_day},
          {"interruptions_per_day_by_cause", causes_json(one.goodput)},
          {"lost", lost_json(one.goodput)},
          {"spare_hosts", one.goodput.spare_hosts},
          {"time_to_train_h", of_run(one.cost.hours)},
          {"cost_usd", of_run(one.cost.usd)},
          {"cost_usd_low", of_run(one.cost.usd_low)},
          {"cost_usd_high", of_run(one.cost.usd_high)},
          {"energy_mwh", of_run(one.cost.energy_mwh)},
          {"co2_t", of_run(one.cost.co2_t)},
          {"embodied_co2_t", of_run(one.cost.embodied_t)},
          {"mean_mw", one.cost.mean_mw},
          {"peak_mw", one.cost.peak_mw},
          {"breakdown", breakdown},
          {"bound_by", bound_by(one.step)},
          {"why_not_best", &one == &best ? "" : why_it_loses(request, one, best)},
          {"provenance", provenance_json(request)}};
}

}  // namespace

std::span<const TimePart> time_parts() {
  return kParts;
}

std::string why_it_loses(const GpuPlanRequest& request, const GpuPrediction& loser,
                         const GpuPrediction& winner) {
  std::vector<std::pair<double, const char*>> growth;
  for (const TimePart& part : kParts)
    growth.emplace_back(loser.step.breakdown.*part.seconds * devices(loser) / devices(winner) -
                            winner.step.breakdown.*part.seconds,
                        part.name);
  std::partial_sort(growth.begin(), growth.begin() + 2, growth.end(), std::greater<>());
  double behind = value_of(request, loser) / value_of(request, winner) - 1;
  std::string text = fmt::format("+{:.1f}% {}", 100 * behind, to_string(request.objective));
  const char* before = ": +";
  for (const auto& [seconds, name] : {growth[0], growth[1]}) {
    if (seconds <= 0.001 * winner.step.seconds) break;
    text += fmt::format("{}{} {}", before, seconds_text(seconds), name);
    before = ", +";
  }
  return text;
}

std::vector<std::pair<std::string, std::string>> gpu_provenance(const GpuPlanRequest& request) {
  std::vector<std::pair<std::string, std::string>> list(request.cluster.source.begin(),
                                                        request.cluster.source.end());
  list.emplace_back("kernel, link and software constants",
                    "fitted on the calibration part of data/published/training_cases.csv");
  list.emplace_back("software generation", request.software.name);
  return list;
}

std::string gpu_table(const GpuPlanRequest& request, const GpuPlan& plan) {
  std::string text = fmt::format("{} on {} x {}: {} layouts, {} evaluated, the rest ruled out, in {}\n",
                                 request.model.name, request.gpus, request.cluster.name, plan.counts.space,
                                 plan.counts.evaluated, seconds_text(plan.seconds));
  if (!request.layout && request.space == SearchSpace::own)
    text += fmt::format(
        "schedules: {}{}\n", schedule_names(request),
        request.schedules.empty()
            ? fmt::format(" (those that {} runs; --schedules all tries more)", request.software.name)
            : "");
  text += fmt::format("{:>3} {:>10} {:>9} {:>6} {:>9}  {:30} {}\n", "", "step", "tok/s/GPU", "MFU", "memory",
                      "bound by", "layout");
  for (size_t i = 0; i < plan.ranked.size(); ++i) {
    const GpuPrediction& one = plan.ranked[i];
    std::string note = i == 0 ? "" : "  " + why_it_loses(request, one, plan.ranked[0]);
    text += fmt::format("{:3} {:>10} {:9.0f} {:5.1f}% {:5.1f} GiB  {:30} {}{}\n", i + 1,
                        seconds_text(one.step.seconds), one.step.tokens_per_s_per_device, 100 * one.step.mfu,
                        gib(one.peak_bytes), bound_by(one.step), text_of(one), note);
  }
  return text;
}

// What of the answer stands on figures that nobody published.
static std::string provenance_text(const GpuPlanRequest& request) {
  std::string assumed;
  for (const auto& [figure, source] : request.cluster.source)
    if (source.starts_with("assumed")) assumed += (assumed.empty() ? "; assumed: " : ", ") + figure;
  return fmt::format("  figures: constants fitted on published runs (docs/accuracy.md){}\n", assumed);
}

std::string gpu_details(const GpuPlanRequest& request, const GpuPrediction& best) {
  const TrainingStep& step = best.step;
  std::string text = fmt::format("\nbest: {}\n", to_string(best.setup.layout));
  text += fmt::format("  step {} ({} to {}, 90 %), {:.0f} TFLOP/s per device, software {}\n",
                      seconds_text(step.seconds), seconds_text(step.low), seconds_text(step.high),
                      step.tflops_per_device, request.software.name);
  text += " ";
  for (const TimePart& part : kParts)
    text += fmt::format(" {} {:.1f}%", part.name, 100 * step.breakdown.*part.seconds / step.seconds);
  const TrainingMemory& full = fullest(best.memory);
  text += fmt::format(
      "\n  memory of the fullest device {:.1f} of {:.1f} GiB: parameters {:.1f}, gradients {:.1f}, optimizer "
      "{:.1f}, "
      "activations {:.1f}, other {:.1f}\n",
      gib(full.device), gib(request.cluster.device.memory_bytes), gib(full.parameters), gib(full.gradients),
      gib(full.optimizer), gib(full.activations),
      gib(full.device - full.parameters - full.gradients - full.optimizer - full.activations));
  text += fmt::format(
      "  goodput {:.1f} %: {:.2f} interruptions a day, a checkpoint every {}, {:.0f} spare hosts{}\n",
      100 * best.goodput.share, best.goodput.interruptions_per_day, seconds_text(best.goodput.interval_s),
      best.goodput.spare_hosts, lost_text(best.goodput));
  text += provenance_text(request);
  if (request.tokens <= 0) return text;
  const RunCost& cost = best.cost;
  text += fmt::format(
      "  run: {:.1f} days, {:.3g} USD ({:.3g} to {:.3g}), {:.3g} MWh, {:.3g} t CO2e ({:.2g} of hardware), "
      "{:.3g} MW of {:.3g} provided\n",
      cost.hours / 24, cost.usd, cost.usd_low, cost.usd_high, cost.energy_mwh, cost.co2_t, cost.embodied_t,
      cost.mean_mw, cost.peak_mw);
  return text;
}

json gpu_json(const GpuPlanRequest& request, const GpuPlan& plan) {
  json out;
  out["results"] = json::array();
  for (const GpuPrediction& one : plan.ranked)
    out["results"].push_back(result_json(request, one, plan.ranked.front()));
  if (plan.ranked.empty()) {
    out["infeasible"] = infeasible_json(plan.infeasible);
  }
  const SearchCounts& counts = plan.counts;
  out["search"] = {{"objective", to_string(request.objective)},
                   {"space", counts.space},
                   {"evaluated", counts.evaluated},
                   {"pruned", counts.pruned()},
                   {"pruned_by",
                    {{"bound", counts.beaten},
                     {"memory", counts.too_large},
                     {"dominated", counts.dominated},
                     {"invalid", counts.invalid}}},
                   {"seconds", plan.seconds}};
  return out;
}

}  // namespace tessera::plan
