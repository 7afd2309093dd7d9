#include "resilience/membership.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace tessera::resilience {
namespace {

using nlohmann::json;

struct Parts {
  int64_t ranks = 0;
  std::set<int64_t> held;
};

// The most ranks for which there are workers and a layout.
std::optional<int64_t> ranks_for(const std::vector<Report>& reports) {
  const Report& first = reports.front();
  int64_t most = std::min<int64_t>(first.ranks, static_cast<int64_t>(reports.size()));
  for (int64_t ranks = most; ranks > 0; --ranks)
    if (first.layouts.count(ranks)) return ranks;
  return std::nullopt;
}

// Seats survivors at their old rank, then everyone else in order of id.
std::vector<int64_t> seat(int64_t ranks, const std::vector<int64_t>& workers, const Plan* previous) {
  std::vector<int64_t> members(static_cast<size_t>(ranks), -1);
  std::vector<int64_t> standing;
  for (int64_t worker : workers) {
    auto rank = previous ? previous->rank_of(worker) : std::nullopt;
    if (rank && *rank < ranks)
      members[static_cast<size_t>(*rank)] = worker;
    else
      standing.push_back(worker);
  }
  auto next = standing.begin();
  for (int64_t& member : members)
    if (member < 0) member = *next++;
  return members;
}

template <class T>
Result<T> decoded(const std::string& text, const char* what, T (*read)(const json&)) {
  try {
    return read(json::parse(text));
  } catch (const std::exception& failure) {
    return invalid("malformed {} in the store: {}", what, failure.what());
  }
}

Report read_report(const json& object) {
  Report report;
  report.worker = object.at("worker");
  report.steps_done = object.at("steps_done");
  report.ranks = object.at("ranks");
  for (const json& part : object.at("held"))
    report.held.push_back({{part.at(0), part.at(1)}, part.at(2), part.at(3), part.at(4)});
  for (const auto& [ranks, layout] : object.at("layouts").items()) report.layouts[std::stoll(ranks)] = layout;
  return report;
}

Plan read_plan(const json& object) {
  Plan plan;
  plan.generation = object.at("generation");
  plan.layout = object.at("layout");
  plan.members = object.at("members").get<std::vector<int64_t>>();
  plan.live = object.at("live").get<std::vector<int64_t>>();
  plan.source = object.at("source") == "memory" ? StateSource::memory : StateSource::disk;
  plan.snapshot = {object.at("step"), object.at("of_generation")};
  return plan;
}

}  // namespace

std::optional<int64_t> Plan::rank_of(int64_t worker) const {
  auto found = std::find(members.begin(), members.end(), worker);
  if (found == members.end()) return std::nullopt;
  return found - members.begin();
}

std::optional<SnapshotId> newest_complete(const std::vector<Report>& reports) {
  std::map<SnapshotId, Parts> snapshots;
  for (const Report& report : reports) {
    for (const HeldPart& part : report.held) {
      snapshots[part.snapshot].ranks = part.ranks;
      snapshots[part.snapshot].held.insert(part.rank);
    }
  }
  for (auto found = snapshots.rbegin(); found != snapshots.rend(); ++found)
    if (static_cast<int64_t>(found->second.held.size()) == found->second.ranks) return found->first;
  return std::nullopt;
}

Result<Plan> form(int64_t generation, const std::vector<Report>& reports, const Plan* previous) {
  if (reports.empty()) return make_error(ErrorCode::unavailable, "no worker is left");
  auto ranks = ranks_for(reports);
  if (!ranks) {
    return make_error(ErrorCode::unavailable, "no layout of equal work for {} or fewer ranks; the job wants {}",
                      reports.size(), reports.front().ranks);
  }
  std::vector<int64_t> workers;
  for (const Report& report : reports) workers.push_back(report.worker);
  std::sort(workers.begin(), workers.end());

  Plan plan;
  plan.generation = generation;
  plan.layout = reports.front().layouts.at(*ranks);
  plan.members = seat(*ranks, workers, previous);
  plan.live = plan.members;
  for (int64_t worker : workers)
    if (!plan.rank_of(worker)) plan.live.push_back(worker);
  if (auto snapshot = newest_complete(reports)) {
    plan.source = StateSource::memory;
    plan.snapshot = *snapshot;
  }
  return plan;
}

std::string encode(const Report& report) {
  json held = json::array(), layouts = json::object();
  for (const HeldPart& part : report.held)
    held.push_back({part.snapshot.step, part.snapshot.generation, part.ranks, part.rank, part.own});
  for (const auto& [ranks, layout] : report.layouts) layouts[std::to_string(ranks)] = layout;
  return json{{"worker", report.worker},
              {"steps_done", report.steps_done},
              {"ranks", report.ranks},
              {"held", held},
              {"layouts", layouts}}
      .dump();
}

std::string encode(const Plan& plan) {
  return json{{"generation", plan.generation},
              {"layout", plan.layout},
              {"members", plan.members},
              {"live", plan.live},
              {"source", plan.source == StateSource::memory ? "memory" : "disk"},
              {"step", plan.snapshot.step},
              {"of_generation", plan.snapshot.generation}}
      .dump();
}

Result<Report> decode_report(const std::string& text) {
  return decoded<Report>(text, "report of a worker", read_report);
}

Result<Plan> decode_plan(const std::string& text) {
  return decoded<Plan>(text, "plan of a generation", read_plan);
}

}  // namespace tessera::resilience
