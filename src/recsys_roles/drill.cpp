#include "recsys_roles/drill.h"

#include <signal.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "comm/socket.h"
#include "core/file.h"
#include "core/log.h"
#include "recsys_data/random.h"

namespace tessera::recsys_roles {
namespace {

using resilience::DrillReport;
using resilience::DrillRow;
using resilience::Event;

constexpr int kRandomKills = 12;
constexpr double kKillNoticed_s = 2, kStopNoticed_s = 5, kHostNoticed_s = 6, kResumed_s = 10;

// One fault: its signals, and how soon they must be noticed.
struct Exercise {
  std::string fault;
  std::vector<Strike> strikes;
  double detect_limit_s = kKillNoticed_s;
  bool host = false;  // of a second host, with a server and the replicas of the others
};

std::vector<Strike> strike_all(const std::vector<RoleName>& roles, int64_t step) {
  std::vector<Strike> strikes;
  for (const RoleName& role : roles) strikes.push_back({role, SIGKILL, step});
  return strikes;
}

std::vector<Exercise> exercises(const recsys_train::RunConfig& run, int64_t at, int64_t steps) {
  std::vector<RoleName> roles = all_roles(run), servers;
  for (const RoleName& role : roles)
    if (role.kind == RoleName::server) servers.push_back(role);
  const RoleName server{RoleName::server, run.servers - 1}, worker{RoleName::worker, 0}, loader;
  const RoleName first{RoleName::trainer, 0}, last{RoleName::trainer, run.trainers - 1};
  recsys_data::Random random(17);
  std::vector<Strike> at_random;
  for (int i = 0; i < kRandomKills; ++i) {
    const auto step = static_cast<int64_t>(random.uniform() * 0.8 * static_cast<double>(steps));
    const auto role = static_cast<size_t>(random.uniform() * static_cast<double>(roles.size()));
    at_random.push_back({roles[role], SIGKILL, step});
  }
  return {{"kill_server", {{server, SIGKILL, at}}},
          {"kill_worker", {{worker, SIGKILL, at}}},
          {"kill_loader", {{loader, SIGKILL, at}}},
          {"kill_trainer", {{last, SIGKILL, at}}},
          {"kill_first_trainer", {{first, SIGKILL, at}}},
          {"stop_server", {{server, SIGSTOP, at}}, kStopNoticed_s},
          {"kill_servers", strike_all(servers, at)},
          {"kill_all", strike_all(roles, at)},
          {"kill_at_random", at_random},
          {"lose_host", {{.step = at, .host = true}}, kHostNoticed_s, true}};
}

Result<std::string> hash_in(const std::filesystem::path& file) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(file));
  auto object = nlohmann::json::parse(text, nullptr, false);
  if (!object.is_object()) return make_error(ErrorCode::data_loss, "{} is no JSON object", file.string());
  return object.value("weights_hash", "") + object.value("rows_hash", "");
}

class Drill {
 public:
  explicit Drill(const DrillOptions& options) : options_(options) {}

  Result<DrillReport> run() {
    DrillReport report;
    say("undisturbed run of one process");
    TESSERA_ASSIGN_OR_RETURN(report.hash, undisturbed());
    TESSERA_ASSIGN_OR_RETURN(auto run, options_.run(options_.settings, ""));
    for (const Exercise& exercise : exercises(run.config, options_.strike_at, options_.steps)) {
      const auto& wanted = options_.faults;
      if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), exercise.fault) == wanted.end()) continue;
      say(exercise.fault);
      TESSERA_ASSIGN_OR_RETURN(DrillRow row, row_of(exercise, report.hash));
      report.rows.push_back(std::move(row));
    }
    return report;
  }

 private:
  void say(const std::string& line) const {
    if (options_.on_progress) options_.on_progress(line);
  }

  Result<std::string> undisturbed() const {
    TESSERA_ASSIGN_OR_RETURN(auto run, options_.run(options_.settings, ""));
    TESSERA_ASSIGN_OR_RETURN(auto setup, set_up(run.config));
    TESSERA_ASSIGN_OR_RETURN(auto result, train(run.config, *setup, {}));
    TESSERA_RETURN_IF_ERROR(add_hashes(*setup, result));
    return result.weights_hash + result.rows_hash;
  }

  Result<DrillRow> row_of(const Exercise& exercise, const std::string& hash) const {
    const std::filesystem::path folder = options_.folder / exercise.fault;
    std::error_code failure;
    std::filesystem::remove_all(folder, failure);
    std::filesystem::create_directories(folder, failure);
    std::vector<std::string> settings = options_.settings;
    if (exercise.host) settings.push_back("train.replicas=1");
    TESSERA_ASSIGN_OR_RETURN(auto run, options_.run(settings, folder / "result.json"));
    SupervisorOptions job{.run = run.config, .roles = all_roles(run.config), .command = run.command};
    job.strikes = exercise.strikes;
    job.max_restarts = kRandomKills;
    job.run_dir = folder;
    auto result = exercise.host ? supervise_two(job) : supervise(job);
    if (!result) return DrillRow{.fault = exercise.fault, .detail = result.error().message};
    auto bits = hash_in(folder / "result.json");
    if (!bits) return DrillRow{.fault = exercise.fault, .detail = bits.error().message};
    DrillRow row = judge(exercise, *result, *bits == hash);
    if (exercise.host) row.source = "replica";
    return row;
  }

  // The last server and the replicas of the others on a host of their own, which is struck.
  static Result<SupervisorResult> supervise_two(SupervisorOptions job) {
    SupervisorOptions other = job;
    auto is_there = [last = job.run.servers - 1](const RoleName& role) {
      return role.kind == RoleName::server ? role.number == last
                                           : role.kind == RoleName::replica && role.number != last;
    };
    std::erase_if(job.roles, is_there);
    std::erase_if(other.roles, [&](const RoleName& role) { return !is_there(role); });
    job.strikes.clear();
    job.token = other.token = comm::random_name();
    other.run_dir.clear();
    std::thread second;
    job.on_meet = [&](const std::string& address) {
      other.join = address;
      second = std::thread([&other] {
        if (auto result = supervise(other); !result.ok())
          log(LogLevel::error, "the second host: {}", result.error().message);
      });
    };
    auto result = supervise(job);
    if (second.joinable()) second.join();
    return result;
  }

  // The slowest notice and return, of all that were struck.
  static DrillRow judge(const Exercise& exercise, const SupervisorResult& result, bool equal) {
    DrillRow row{.fault = exercise.fault, .source = "memory", .weights_equal = equal};
    size_t lost = 0, resumed = 0;
    for (const Event& event : result.events) {
      if (event.event == "lost" && lost++ == 0) row.detail = event.detail;
      if (event.event == "resumed") ++resumed;
      row.detect_s = std::max(row.detect_s, event.detect_s.value_or(0));
      row.resume_s = std::max(row.resume_s, event.resume_s.value_or(0));
    }
    if (lost > 1) row.detail += fmt::format("; and {} more", lost - 1);
    std::string wrong;
    if (lost < exercise.strikes.size())
      wrong = fmt::format("{} of {} faults struck", lost, exercise.strikes.size());
    else if (resumed == 0)
      wrong = "no role was seen to resume";
    else if (row.detect_s > exercise.detect_limit_s)
      wrong = fmt::format("noticed later than {} s", exercise.detect_limit_s);
    else if (row.resume_s > kResumed_s)
      wrong = fmt::format("resumed later than {} s", kResumed_s);
    row.recovered = wrong.empty();
    if (!wrong.empty()) row.detail = wrong + "; " + row.detail;
    return row;
  }

  const DrillOptions& options_;
};

}  // namespace

std::vector<std::string> drill_faults() {
  std::vector<std::string> names;
  for (const Exercise& exercise : exercises({}, 0, 0)) names.push_back(exercise.fault);
  return names;
}

Result<DrillReport> run_drill(const DrillOptions& options) {
  return Drill(options).run();
}

}  // namespace tessera::recsys_roles
