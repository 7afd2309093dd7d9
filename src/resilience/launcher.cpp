#include "resilience/launcher.h"

#include <signal.h>
#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "comm/tcp_store.h"
#include "core/hash.h"
#include "core/log.h"

namespace tessera::resilience {
namespace {

constexpr double kTick = 0.02;        // seconds; an end or output wakes earlier
constexpr double kEndGrace = 5;       // for workers to leave after the last order
constexpr double kListenEvery = 0.1;  // seconds between two readings of signs of life

std::string fresh_token() {
  uint64_t words[2] = {};
  if (::getrandom(words, sizeof words, 0) != static_cast<ssize_t>(sizeof words)) return "";
  return hex(words[0]) + hex(words[1]);
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

class Launcher {
 public:
  explicit Launcher(const LaunchOptions& options)
      : options_(options),
        crew_([this](const OutputLine& line) { say(line); },
              options.run_dir.empty() ? std::filesystem::path() : options.run_dir / "logs") {}

  Result<LaunchResult> run();

 private:
  enum class Phase { forming, running, ending };

  Status begin();
  Status tick();
  void leave(const std::string& error);

  Status start_worker();
  Status replace_lost();
  Status order(const Order& order);
  Status call(const std::string& reason);

  Status take_losses();
  Status take_loss(CrewMember& member, const ExitStatus& status);
  void watch_silence();
  int64_t newest_step();
  std::string scene_around(const CrewMember& silent);
  Status obey_signal();

  Status advance_forming();
  Status publish(const Plan& plan);
  Status advance_running();
  void note_running(const Running& running);

  void emit(Event event);
  void say(const OutputLine& line) const;
  double delay_of_notice(const CrewMember& member);

  const LaunchOptions& options_;
  Crew crew_;
  std::unique_ptr<StoreServer> server_;
  std::shared_ptr<Store> store_;
  std::string token_;
  Phase phase_ = Phase::forming;
  int64_t generation_ = 0, next_worker_ = 0, next_order_ = 0, first_order_ = 0;
  int64_t restarts_ = 0, restarted_for_ = 0;  // the generation for which the last restart was spent
  std::map<int64_t, Report> reports_;         // for the generation being formed
  Plan plan_;                                 // the last one
  bool formed_ = false, running_seen_ = false;
  int64_t steps_done_ = 0;  // the most that any worker completed before the loss
  Clock::time_point noticed_at_ = Clock::now(), listened_at_ = Clock::now(), stop_at_;
  LaunchResult result_;
};

Result<LaunchResult> Launcher::run() {
  Status status = begin();
  while (status.ok() && phase_ != Phase::ending) status = tick();
  leave(status.ok() ? "" : status.error().message);
  if (status.ok()) return std::move(result_);
  emit({.event = "failed", .detail = status.error().message});
  return status.error();
}

Status Launcher::begin() {
  if (options_.workers < 1) return invalid("a job needs at least one worker, got {}", options_.workers);
  token_ = fresh_token();
  TESSERA_ASSIGN_OR_RETURN(server_, StoreServer::start(options_.address, 0, token_));
  TESSERA_ASSIGN_OR_RETURN(store_,
                           connect_store(options_.address, server_->port(), token_, Deadline::after(10)));
  TESSERA_RETURN_IF_ERROR(call("start"));
  for (int64_t i = 0; i < options_.workers + options_.spares; ++i) TESSERA_RETURN_IF_ERROR(start_worker());
  return {};
}

Status Launcher::tick() {
  crew_.wait(kTick);
  TESSERA_RETURN_IF_ERROR(take_losses());
  if (seconds_since(listened_at_) >= kListenEvery) {
    listened_at_ = Clock::now();
    crew_.listen(*store_);
    watch_silence();
  }
  TESSERA_RETURN_IF_ERROR(obey_signal());
  return phase_ == Phase::forming ? advance_forming() : advance_running();
}

// Workers get the last order and some time to leave; whoever is still there is killed with the crew.
void Launcher::leave(const std::string& error) {
  phase_ = Phase::ending;
  if (store_) (void)order({.kind = Order::end, .generation = 0, .text = error, .formed = {}});
  Deadline grace = Deadline::after(error.empty() ? kEndGrace : 1);
  while (crew_.size() > 0 && !grace.passed()) {
    crew_.wait(kTick);
    crew_.reap();
  }
  crew_.signal_all(SIGKILL);
  while (crew_.size() > 0) {
    crew_.wait(kTick);
    crew_.reap();
  }
}

Status Launcher::start_worker() {
  int64_t id = next_worker_++;
  ProcessOptions process{.command = options_.command, .environment = {}, .secret = token_};
  if (options_.environment) process.environment = options_.environment(id);
  process.environment["TESSERA_STORE"] = fmt::format("{}:{}", options_.address, server_->port());
  process.environment["TESSERA_WORKER"] = std::to_string(id);
  process.environment["TESSERA_FIRST_ORDER"] = std::to_string(first_order_);
  process.environment["RANK"] = process.environment["LOCAL_RANK"] = std::to_string(id);
  process.environment["WORLD_SIZE"] = std::to_string(options_.workers);
  process.environment["MASTER_ADDR"] = options_.address;
  process.environment["MASTER_PORT"] = std::to_string(server_->port());
  return crew_.start(id, process);
}

// New processes for the missing ones, while restarts are left. One round serves a whole generation.
Status Launcher::replace_lost() {
  if (crew_.size() >= options_.workers) return {};
  bool round_open = restarted_for_ == generation_;
  if (!round_open && restarts_ >= options_.max_restarts) return {};
  if (!round_open) ++restarts_;
  restarted_for_ = generation_;
  while (crew_.size() < options_.workers) TESSERA_RETURN_IF_ERROR(start_worker());
  return {};
}

Status Launcher::order(const Order& order) {
  return store_->set(key::order(next_order_++), encode(order));
}

Status Launcher::call(const std::string& reason) {
  ++generation_;
  phase_ = Phase::forming;
  reports_.clear();
  running_seen_ = false;
  noticed_at_ = Clock::now();
  first_order_ = next_order_;
  return order({.kind = Order::call, .generation = generation_, .text = reason, .formed = {}});
}

Status Launcher::take_losses() {
  for (auto& [member, status] : crew_.reap()) TESSERA_RETURN_IF_ERROR(take_loss(*member, status));
  return {};
}

Status Launcher::take_loss(CrewMember& member, const ExitStatus& status) {
  if (auto fatal = peek(*store_, key::fatal(member.id))) return invalid("{}", *fatal);
  std::string why = member.verdict.empty() ? status.describe() : member.verdict;
  if (!formed_ && !member.joined) {
    crew_.release_output(member);
    return invalid("worker {} ended ({}) before it joined the job", member.id, why);
  }
  auto rank = plan_.rank_of(member.id);
  double detect_s = delay_of_notice(member);
  steps_done_ = std::max({steps_done_, member.beat.step, newest_step()});
  reports_.erase(member.id);
  Event lost{.event = "lost", .worker = member.id, .rank = rank, .step = steps_done_, .detect_s = detect_s};
  lost.detail = fmt::format("worker {} ({}) {}, noticed after {:.2f} s", member.id,
                            rank ? fmt::format("rank {}", *rank) : "spare", why, detect_s);
  emit(std::move(lost));
  if (phase_ == Phase::running && !rank) return {};
  if (phase_ == Phase::running)
    TESSERA_RETURN_IF_ERROR(call(fmt::format("worker {} (rank {}) {}", member.id, *rank, why)));
  return replace_lost();
}

// Exact when the fault says when it struck, else since the last sign of life: an upper bound.
double Launcher::delay_of_notice(const CrewMember& member) {
  auto struck = peek(*store_, key::fault(member.id));
  return struck ? monotonic_seconds() - std::stod(*struck) : member.silence();
}

void Launcher::watch_silence() {
  for (auto& [id, member] : crew_.members()) {
    double limit = member->joined ? options_.silence_s : options_.start_s;
    if (member->silence() < limit || !member->verdict.empty()) continue;
    member->verdict = fmt::format("gave no sign of life for {:.1f} s in step {}{}; killed", member->silence(),
                                  newest_step(), scene_around(*member));
    member->process.signal(SIGKILL);
  }
}

// Steps end on all ranks together, so rank 0's word is as good as a silent worker's last one.
int64_t Launcher::newest_step() {
  auto text = peek(*store_, key::steps);
  return text ? std::stoll(*text) : 0;
}

// The operation that the silent worker was in, or the one in which another rank waits.
std::string Launcher::scene_around(const CrewMember& silent) {
  if (!silent.beat.operation.empty()) return ", in " + silent.beat.operation;
  for (auto& [id, member] : crew_.members()) {
    auto rank = plan_.rank_of(id);
    if (rank && id != silent.id && !member->beat.operation.empty())
      return fmt::format(", in computation while rank {} is in {}", *rank, member->beat.operation);
  }
  return ", in computation";
}

Status Launcher::obey_signal() {
  int count = options_.stop ? options_.stop->count.load() : 0;
  if (count == 0) return {};
  int number = options_.stop->signal;
  if (!result_.stopped) {
    result_.stopped = true;
    stop_at_ = Clock::now();
    emit({.event = "stopping", .detail = fmt::format("signal {}: workers finish their step and save", number)});
    return order({.kind = Order::stop, .generation = 0, .text = "", .formed = {}});
  }
  if (count > 1) return make_error(ErrorCode::aborted, "stopped by a second signal {}", number);
  if (seconds_since(stop_at_) < options_.stop_s) return {};
  return make_error(ErrorCode::deadline_exceeded, "workers did not stop within {:.0f} s of signal {}",
                    options_.stop_s, number);
}

Status Launcher::advance_forming() {
  for (auto& [id, member] : crew_.members()) {
    if (reports_.count(id)) continue;
    auto text = peek(*store_, key::report(generation_, id));
    if (!text) return {};
    TESSERA_ASSIGN_OR_RETURN(reports_[id], decode_report(*text));
    steps_done_ = std::max(steps_done_, reports_[id].steps_done);
  }
  std::vector<Report> reports;
  for (const auto& [id, report] : reports_) reports.push_back(report);
  TESSERA_ASSIGN_OR_RETURN(Plan plan, form(generation_, reports, formed_ ? &plan_ : nullptr));
  if (!formed_ && static_cast<int64_t>(plan.members.size()) != reports.front().ranks) {
    return invalid("the layout has {} ranks, but {} workers were started; give -n {}", reports.front().ranks,
                   reports.size(), reports.front().ranks);
  }
  if (!formed_ && static_cast<int64_t>(plan.members.size()) != options_.workers)
    return invalid("the layout has {} ranks, but -n is {}", plan.members.size(), options_.workers);
  return publish(plan);
}

Status Launcher::publish(const Plan& plan) {
  plan_ = plan;
  formed_ = true;
  phase_ = Phase::running;
  Event event{.event = "formed", .layout = plan.layout};
  event.detail = fmt::format("{} ranks, layout {}", plan.members.size(), plan.layout);
  if (size_t spares = plan.live.size() - plan.members.size()) event.detail += fmt::format(", {} spare", spares);
  if (plan.source == StateSource::memory) {
    event.detail += fmt::format(", state of step {} in the workers' memory", plan.snapshot.step);
    event.source = "memory";
    event.step = plan.snapshot.step;
  }
  emit(std::move(event));
  return order({.kind = Order::plan, .generation = plan.generation, .text = "", .formed = plan});
}

Status Launcher::advance_running() {
  if (!running_seen_) {
    if (auto text = peek(*store_, key::running(generation_))) {
      TESSERA_ASSIGN_OR_RETURN(Running running, decode_running(*text));
      note_running(running);
    }
  }
  for (int64_t worker : plan_.members)
    if (!peek(*store_, key::done(generation_, worker))) return {};
  result_.result = *peek(*store_, key::done(generation_, plan_.members.front()));
  result_.generations = generation_;
  result_.restarts = restarts_;
  emit({.event = result_.stopped ? "stopped" : "finished",
        .detail =
            fmt::format("{} after {} generation{} and {} restart{}", result_.stopped ? "stopped" : "finished",
                        generation_, generation_ == 1 ? "" : "s", restarts_, restarts_ == 1 ? "" : "s")});
  phase_ = Phase::ending;
  return {};
}

void Launcher::note_running(const Running& running) {
  running_seen_ = true;
  Event event{.event = generation_ == 1 ? "started" : "resumed",
              .step = running.first_step,
              .source = running.source,
              .resume_s = seconds_since(noticed_at_),
              .layout = plan_.layout};
  event.detail = fmt::format("{} at step {} {}{}, {:.2f} s", event.event, running.first_step,
                             running.source == "fresh" ? "" : "from ", running.source, *event.resume_s);
  if (generation_ > 1) {
    event.steps_redone = std::max<int64_t>(0, steps_done_ - running.first_step);
    event.detail += fmt::format(" after the loss was noticed; {} step{} redone", *event.steps_redone,
                                *event.steps_redone == 1 ? "" : "s");
  }
  steps_done_ = 0;
  emit(std::move(event));
}

void Launcher::emit(Event event) {
  event.time = unix_seconds();
  event.generation = generation_;
  if (options_.on_event) options_.on_event(event);
  if (!options_.run_dir.empty()) {
    if (Status status = append(event, options_.run_dir / "events.jsonl"); !status.ok())
      log(LogLevel::warn, "{}", status.error().message);
  }
  result_.events.push_back(std::move(event));
}

void Launcher::say(const OutputLine& line) const {
  if (options_.on_line) options_.on_line(line, plan_.rank_of(line.worker).value_or(-1));
}

}  // namespace

Result<LaunchResult> launch(const LaunchOptions& options) {
  return Launcher(options).run();
}

}  // namespace tessera::resilience
