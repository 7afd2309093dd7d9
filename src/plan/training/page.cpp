#include "plan/training/page.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/numbers.h"
#include "plan/page/page.h"
#include "plan/report.h"
#include "plan/training/gpu_report.h"
#include "plan/training/page_points.h"
#include "plan/training/page_timeline.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

// What a picture's axis shows of a run, or of the tokens of a step where no run is given.
struct Scale {
  double time, money, energy;
  std::string time_unit, money_unit, energy_unit;
};
Scale scale_of(const GpuPlanRequest& request) {
  if (request.tokens > 0) return {1.0 / 24, 1, 1, "days of the run", "USD of the run", "MWh of the run"};
  double millions = static_cast<double>(request.work.seq * request.work.global_batch) / 1e6;
  return {3600,
          1 / millions,
          1000 / millions,
          "seconds of a step",
          "USD per million tokens",
          "kWh per million tokens"};
}

json point_json(const LayoutPoint& point, const Scale& scale) {
  return {point.gpus,
          page_number(point.hours * scale.time),
          page_number(point.usd * scale.money),
          page_number(point.tokens_per_s_per_device),
          page_number(gib(point.peak_bytes)),
          point.fits ? 1 : 0,
          point.layout};
}

// Parts of a device's memory, from the bottom of the stack; they sum to what the device shows.
json memory_json(const std::vector<TrainingMemory>& stages) {
  json rows = json::array();
  for (const TrainingMemory& m : stages) {
    json row = json::array();
    for (double bytes :
         {m.parameters, m.gradients, m.optimizer, m.activations, m.gathered, m.workspace, m.buffers,
          std::max(0.0, m.reserved - m.allocated()), std::max(0.0, m.device - m.reserved)})
      row.push_back(page_number(gib(bytes)));
    rows.push_back(std::move(row));
  }
  return {{"parts",
           {"parameters", "gradients", "optimizer", "activations", "gathered", "workspace", "buffers",
            "allocator", "context"}},
          {"rows", std::move(rows)}};
}

json times_json(const GpuPlan& plan) {
  json names = json::array(), rows = json::array();
  for (const TimePart& part : time_parts()) names.push_back(part.name);
  for (const GpuPrediction& one : plan.ranked) {
    json row = json::array();
    for (const TimePart& part : time_parts()) row.push_back(page_number(one.step.breakdown.*part.seconds));
    rows.push_back(std::move(row));
  }
  return {{"parts", std::move(names)}, {"rows", std::move(rows)}};
}

json plan_json(const GpuPlanRequest& request, const GpuPlan& plan) {
  Scale scale = scale_of(request);
  LayoutCloud cloud = layout_cloud(request);
  json points = json::array(), front = json::array(), best = json::array(), usd = json::array(),
       energy = json::array();
  for (const LayoutPoint& point : cloud.points) points.push_back(point_json(point, scale));
  for (const LayoutPoint& point : cloud.front) front.push_back(point_json(point, scale));
  for (const GpuPrediction& one : plan.ranked) {
    best.push_back(point_json(layout_point(one), scale));
    usd.push_back(page_number(one.cost.usd * scale.money));
    energy.push_back(page_number(one.cost.energy_mwh * scale.energy));
  }
  json out = {{"gpus", request.gpus},
              {"x", {{"unit", scale.time_unit}}},
              {"money", {{"unit", scale.money_unit}, {"rows", usd}}},
              {"energy", {{"unit", scale.energy_unit}, {"rows", energy}}},
              {"capacity", page_number(gib(request.cluster.device.memory_bytes))},
              {"points", points},
              {"front", front},
              {"best", best},
              {"time", times_json(plan)}};
  if (plan.ranked.empty()) return out;
  out["memory"] = memory_json(plan.ranked.front().memory);
  if (auto timeline = pipeline_timeline(plan.ranked.front())) out["timeline"] = timeline_json(*timeline);
  return out;
}

std::string power_text(double megawatts) {
  return megawatts < 1 ? fmt::format("{:.3g} kW", 1000 * megawatts) : fmt::format("{:.3g} MW", megawatts);
}

std::string tiles(const GpuPlanRequest& request, const GpuPrediction& best) {
  const TrainingStep& step = best.step;
  const RunCost& cost = best.cost;
  std::vector<PageTile> list = {
      {"Step", seconds_text(step.seconds),
       fmt::format("{} to {} in 90 of 100 cases", seconds_text(step.low), seconds_text(step.high))},
      {"Tokens/s per device", grouped(step.tokens_per_s_per_device),
       fmt::format("{:.0f} TFLOP/s, MFU {:.1f} %", step.tflops_per_device, 100 * step.mfu)},
      {"Memory", fmt::format("{:.1f} GiB", gib(best.peak_bytes)),
       fmt::format("fullest device, of {:.0f} GiB", gib(request.cluster.device.memory_bytes))},
      {"Goodput", fmt::format("{:.1f} %", 100 * best.goodput.share),
       fmt::format("{:.2g} interruptions a day, a checkpoint every {}", best.goodput.interruptions_per_day,
                   seconds_text(best.goodput.interval_s))}};
  if (request.tokens > 0) {
    list.push_back({"Run", fmt::format("{:.1f} days", cost.hours / 24),
                    fmt::format("{:.3g} tokens, failures included", request.tokens)});
    list.push_back({"Cost", fmt::format("{:.3g} M USD", cost.usd / 1e6),
                    fmt::format("{:.3g} to {:.3g} M USD", cost.usd_low / 1e6, cost.usd_high / 1e6)});
    list.push_back({"Energy", fmt::format("{} MWh", grouped(cost.energy_mwh)),
                    fmt::format("{} t CO2e", grouped(cost.co2_t))});
  }
  list.push_back({"Power", power_text(cost.mean_mw), power_text(cost.peak_mw) + " at most"});
  return page_tiles(list);
}

std::string ranking(const GpuPlanRequest& request, const GpuPlan& plan) {
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < plan.ranked.size(); ++i) {
    const GpuPrediction& one = plan.ranked[i];
    rows.push_back({std::to_string(i + 1), to_string(one.setup.layout), seconds_text(one.step.seconds),
                    grouped(one.step.tokens_per_s_per_device), fmt::format("{:.1f} %", 100 * one.step.mfu),
                    fmt::format("{:.1f}", gib(one.peak_bytes)), bound_by(one.step),
                    i == 0 ? "" : why_it_loses(request, one, plan.ranked[0])});
  }
  return page_table(
      {"", "layout", "step", "tokens/s per device", "MFU", "GiB", "bound by", "against the first"}, rows, 2);
}

std::string provenance(const GpuPlanRequest& request) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [figure, source] : gpu_provenance(request)) rows.push_back({figure, source});
  return page_table({"figure", "source"}, rows, 2);
}

std::string timeline_section(const GpuPrediction& best) {
  auto timeline = pipeline_timeline(best);
  if (!timeline)
    return page_section("Pipeline",
                        fmt::format("The schedule {} has a closed form and no table to draw.",
                                    to_string(best.setup.layout.schedule)),
                        "");
  std::string note = fmt::format(
      "The best layout: a row for each stage, a box for each micro-batch; grey is waiting. {} of {} "
      "micro-batches{}. "
      "Gradients, optimizer and host follow after it. Point at a box to read it.",
      timeline->micro_batches, best.setup.micro_batches(),
      timeline->chunks > 1 ? fmt::format(", {} chunks a stage, later ones lighter", timeline->chunks) : "");
  std::string legend = "<div class=\"legend\">";
  // Zero-bubble schedules and DualPipe put weight gradients off.
  bool apart = best.setup.layout.schedule >= PipelineKind::zb_h1;
  bool both = best.setup.layout.schedule == PipelineKind::dualpipe;
  legend +=
      "<span><i style=\"background:#2a6fbb\"></i>forward</span><span><i style=\"background:#2c8a57\"></i>" +
      std::string(apart && !both ? "backward, inputs" : "backward") + "</span>";
  if (apart) legend += "<span><i style=\"background:#b8860b\"></i>backward, weights</span>";
  return page_section("Pipeline", note,
                      legend + "</div>" + page_chart("timeline", "Timeline of the pipeline's stages") +
                          "<p class=\"hint\" id=\"timeline-hint\"></p>");
}

std::string body(const GpuPlanRequest& request, const GpuPlan& plan) {
  std::string clouds = page_section("Time and money",
                                    "Every layout is a point, on these devices and on a quarter to four times "
                                    "as many; the line joins the "
                                    "best. Left is sooner, low is cheaper.",
                                    page_chart("money-time", "Layouts by time and money")) +
                       page_section("Speed and memory",
                                    fmt::format("The layouts of {} devices; each has {:.0f} GiB.",
                                                grouped(static_cast<double>(request.gpus)),
                                                gib(request.cluster.device.memory_bytes)),
                                    page_chart("memory-speed", "Layouts by memory and speed"));
  if (plan.ranked.empty())
    return page_infeasible("Nothing fits", "What the nearest layout misses.", plan.infeasible) + clouds;
  const GpuPrediction& best = plan.ranked.front();
  return tiles(request, best) +
         page_section("Ranking", "The fastest that fit, what bounds each, and what it loses to the first.",
                      ranking(request, plan)) +
         clouds +
         page_section("Memory by stage", "The best layout; the dashed line is what a device has.",
                      page_chart("stages", "Memory of each pipeline stage")) +
         timeline_section(best) +
         page_section("Where a step goes", "By the numbers of the ranking; the parts sum to the step.",
                      page_chart("time", "Time of a step by cause")) +
         page_section("Cost and energy",
                      request.tokens > 0 ? "Rented price and utility power of all devices, failures included."
                                         : "Rented price and utility power of all devices.",
                      page_chart("money", "Cost and energy of the ranked layouts")) +
         page_section("Where the figures come from", "Change them in a cluster file of your own.",
                      provenance(request));
}

}  // namespace

std::string training_page(const GpuPlanRequest& request, const GpuPlan& plan) {
  std::string title = fmt::format("{} on {} x {}", request.model.name,
                                  grouped(static_cast<double>(request.gpus)), request.cluster.name);
  std::string intro = fmt::format(
      "Sequences of {} tokens, {} of them a step, {}, software {}; {} layouts, {} timed in {}. Predictions; "
      "how far "
      "they are from published runs stands in docs/accuracy.md.",
      grouped(static_cast<double>(request.work.seq)), grouped(static_cast<double>(request.work.global_batch)),
      to_string(request.work.precision), request.software.name, grouped(static_cast<double>(plan.counts.space)),
      grouped(static_cast<double>(plan.counts.evaluated)), seconds_text(plan.seconds));
  return page_document(title, intro, body(request, plan), plan_json(request, plan), "training.js");
}

}  // namespace tessera::plan
