#include "resilience/drill.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "layout/layout.h"
#include "resilience/launcher.h"

namespace tessera::resilience {
namespace {

// One fault and what must come of it.
struct Exercise {
  std::string fault;
  std::map<int64_t, std::string> strikes;  // TESSERA_FAULT of a worker
  bool memory = true, disk = false;
  int64_t max_restarts = 3;
  std::string source;  // of the state
  double detect_limit_s = 2, resume_limit_s = 10;
  int64_t first_step = -1;  // that the job must go on with; -1: any
};

std::string at(const char* what, int64_t step, const char* moment) {
  return fmt::format("{}@{}:{}", what, step, moment);
}

// Faults strike late enough that a snapshot or checkpoint older than the newest is there.
std::vector<Exercise> exercises(int64_t ranks, int64_t steps, int64_t every) {
  int64_t middle = std::min(steps - 2, 2 * every + 2);
  Exercise worker{.fault = "kill_worker", .strikes = {{2, at("kill", middle, "middle")}}, .source = "memory"};
  Exercise all{.fault = "kill_all", .disk = true, .source = "disk", .resume_limit_s = 60};
  for (int64_t one = 0; one < ranks; ++one) all.strikes[one] = at("kill", middle, "together");
  Exercise stop{.fault = "stop_worker", .strikes = {{1, at("stop", middle, "middle")}}, .source = "memory"};
  stop.detect_limit_s = 5;
  stop.resume_limit_s = 15;
  Exercise spare{.fault = "no_spare", .strikes = {{3, at("kill", middle, "middle")}}, .source = "memory"};
  spare.max_restarts = 0;
  Exercise save{.fault = "kill_during_save", .strikes = {{0, at("kill", 2 * every, "save")}}, .source = "disk"};
  save.memory = false, save.disk = true, save.first_step = every, save.resume_limit_s = 60;
  return {worker, all, stop, spare, save};
}

class Drill {
 public:
  explicit Drill(const DrillOptions& options) : options_(options) {}

  Result<DrillReport> run() {
    TESSERA_ASSIGN_OR_RETURN(Layout layout, parse_layout(options_.layout));
    ranks_ = layout.processes();
    DrillReport report;
    say("undisturbed run of one process");
    TESSERA_ASSIGN_OR_RETURN(report.hash, undisturbed());
    for (const Exercise& exercise : exercises(ranks_, options_.steps, options_.every)) {
      if (!wanted(exercise.fault)) continue;
      say(exercise.fault);
      report.rows.push_back(row_of(exercise, report.hash));
    }
    return report;
  }

 private:
  bool wanted(const std::string& fault) const {
    const auto& list = options_.faults;
    return list.empty() || std::find(list.begin(), list.end(), fault) != list.end();
  }
  void say(const std::string& line) const {
    if (options_.on_progress) options_.on_progress(line);
  }

  std::vector<std::string> settings(const std::string& layout, const std::string& folder, int64_t snapshots,
                                    int64_t checkpoints) const {
    bool disk = checkpoints > 0;
    return {"layout=" + layout,
            "work.numerics=exact",
            fmt::format("train.steps={}", options_.steps),
            fmt::format("train.run_dir={}", disk ? folder : ""),
            fmt::format("train.disk_checkpoints={}", disk),
            fmt::format("train.snapshot_every={}", snapshots),
            fmt::format("train.checkpoint_every={}", checkpoints)};
  }

  Result<std::string> undisturbed() const {
    LaunchOptions launch_options;
    launch_options.max_restarts = 0;
    launch_options.command = options_.command(settings("dp=1", "", 0, 0));
    collect(launch_options, "undisturbed");
    TESSERA_ASSIGN_OR_RETURN(LaunchResult result, launch(launch_options));
    return hash_of(result);
  }

  // Output of the workers is in the folder's logs; the drill's own table is what the user reads.
  void collect(LaunchOptions& launch_options, const std::string& name) const {
    launch_options.run_dir = options_.folder / name;
    std::error_code failure;
    std::filesystem::remove_all(launch_options.run_dir, failure);
    launch_options.environment = [](int64_t) { return std::map<std::string, std::string>(); };
  }

  DrillRow row_of(const Exercise& exercise, const std::string& hash) const {
    LaunchOptions launch_options;
    collect(launch_options, exercise.fault);
    launch_options.workers = ranks_;
    launch_options.max_restarts = exercise.max_restarts;
    launch_options.command =
        options_.command(settings(options_.layout, launch_options.run_dir.string(),
                                  exercise.memory ? options_.every : 0, exercise.disk ? options_.every : 0));
    launch_options.environment = [&](int64_t worker) {
      std::map<std::string, std::string> variables;
      if (exercise.strikes.count(worker)) variables["TESSERA_FAULT"] = exercise.strikes.at(worker);
      return variables;
    };
    auto result = launch(launch_options);
    if (!result) return {.fault = exercise.fault, .detail = result.error().message};
    return judge(exercise, *result, hash);
  }

  DrillRow judge(const Exercise& exercise, const LaunchResult& result, const std::string& hash) const {
    DrillRow row{.fault = exercise.fault};
    row.weights_equal = hash_of(result) == hash;
    const Event *lost = nullptr, *resumed = nullptr;
    for (const Event& event : result.events) {
      if (event.event == "lost" && !lost) lost = &event;
      if (event.event == "resumed") resumed = &event;
    }
    if (!lost || !resumed) {
      row.detail = lost ? "the job did not resume" : "the fault did not strike";
      return row;
    }
    row.detail = lost->detail;
    row.detect_s = *lost->detect_s;
    row.resume_s = *lost->detect_s + *resumed->resume_s;
    row.steps_redone = *resumed->steps_redone;
    row.source = *resumed->source;
    check(exercise, *resumed, row);
    return row;
  }

  void check(const Exercise& exercise, const Event& resumed, DrillRow& row) const {
    std::string wrong;
    if (row.source != exercise.source)
      wrong = fmt::format("state came from {}, not {}", row.source, exercise.source);
    if (row.detect_s > exercise.detect_limit_s)
      wrong = fmt::format("noticed later than {} s", exercise.detect_limit_s);
    if (row.resume_s > exercise.resume_limit_s)
      wrong = fmt::format("resumed later than {} s", exercise.resume_limit_s);
    if (exercise.memory && !exercise.disk && row.steps_redone > options_.every)
      wrong = fmt::format("more than {} steps redone", options_.every);
    if (exercise.first_step >= 0 && resumed.step != exercise.first_step)
      wrong = fmt::format("went on with step {}, not {}", *resumed.step, exercise.first_step);
    row.recovered = wrong.empty();
    if (!wrong.empty()) row.detail = wrong + "; " + row.detail;
  }

  static std::string hash_of(const LaunchResult& result) {
    auto object = nlohmann::json::parse(result.result, nullptr, false);
    return object.is_object() ? object.value("weights_hash", "") : "";
  }

  const DrillOptions& options_;
  int64_t ranks_ = 4;
};

}  // namespace

bool DrillReport::passed() const {
  return !rows.empty() && !hash.empty() && std::all_of(rows.begin(), rows.end(), [](const auto& row) {
    return row.recovered && row.weights_equal;
  });
}

Result<DrillReport> run_drill(const DrillOptions& options) {
  return Drill(options).run();
}

std::string to_json(const DrillReport& report) {
  auto rows = nlohmann::ordered_json::array();
  for (const DrillRow& row : report.rows) {
    nlohmann::ordered_json object;
    object["fault"] = row.fault;
    object["detect_s"] = row.detect_s;
    object["resume_s"] = row.resume_s;
    object["steps_redone"] = row.steps_redone;
    object["recovered"] = row.recovered;
    object["weights_equal"] = row.weights_equal;
    object["source"] = row.source;
    object["detail"] = row.detail;
    rows.push_back(std::move(object));
  }
  nlohmann::ordered_json object;
  object["rows"] = rows;
  object["weights_hash"] = report.hash;
  return object.dump(2) + "\n";
}

std::string to_table(const DrillReport& report) {
  std::string text = fmt::format("{:<17} {:>9} {:>9} {:>6} {:<7} {:<10} {}\n", "fault", "detect s", "resume s",
                                 "redone", "source", "recovered", "weights");
  for (const DrillRow& row : report.rows) {
    text += fmt::format("{:<17} {:>9.2f} {:>9.2f} {:>6} {:<7} {:<10} {}\n", row.fault, row.detect_s,
                        row.resume_s, row.steps_redone, row.source, row.recovered ? "yes" : "NO",
                        row.weights_equal ? "equal" : "DIFFER");
    text += fmt::format("  {}\n", row.detail);
  }
  return text;
}

}  // namespace tessera::resilience
