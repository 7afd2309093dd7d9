#include "recsys_roles/supervisor.h"

#include <fmt/ranges.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <thread>

#include "comm/socket.h"
#include "comm/tcp_store.h"
#include "core/log.h"
#include "recsys/shared_file.h"
#include "recsys_roles/hosts.h"
#include "recsys_roles/replica.h"
#include "recsys_roles/reshard_desk.h"
#include "resilience/crew.h"

namespace tessera::recsys_roles {
namespace {

using resilience::CrewMember;
using resilience::Event;

constexpr double kTick_s = 0.02;    // an end or output wakes earlier
constexpr double kLook_s = 0.1;     // between two readings of signs of life
constexpr double kLeave_s = 5;      // for roles and other hosts to leave
constexpr double kLong_s = 600;     // a role that ran so long has its restarts back
constexpr double kFinish_s = 3600;  // for the last trainer's test
constexpr double kMover_s = 15;     // for a server that dies in a move to come back
constexpr double kDefer_s = 1;      // a host leaves a replica of its own server to others for so long

// Keys that concern the whole job.
constexpr const char* kProcesses = "recsys-processes";  // numbers given to processes
constexpr const char* kEnd = "recsys-end";              // set once: "", or the error that ends the job
constexpr const char* kHosts = "recsys-joined";         // supervisors that joined and have not left
constexpr const char* kWanted = "recsys-wanted";  // "replica:0#1 worker:0#2": roles of lost hosts, numbered
std::string done_key(int64_t rank) {
  return "recsys-done/" + trainer_role(rank);
}

// The number of the host whose replica:N becomes server:N.
std::string heir_key(int64_t server) {
  return fmt::format("recsys-heir/{}/", server);
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A role that this supervisor answers for, through all its processes.
struct Post {
  RoleName role;
  std::unique_ptr<recsys::MemoryKeeper> memory;
  int64_t process = -1;  // its number in the crew; -1: it has finished
  int64_t restarts = 0;  // since it last ran for long
  Clock::time_point started_at;
  std::optional<Clock::time_point> struck_at;  // by a drill
  std::optional<Clock::time_point> lost_at;    // until it is known to have resumed
  int64_t steps_when_back = -1;                // steps done when the new process was ready; -1: it is not
};

class Supervisor {
 public:
  explicit Supervisor(const SupervisorOptions& options)
      : options_(options),
        crew_([this](const resilience::OutputLine& line) { say(line); },
              options.run_dir.empty() ? std::filesystem::path() : options.run_dir / "logs") {}
  Result<SupervisorResult> run();

 private:
  Status begin();
  Status meet();
  Status connect(const std::string& host, int port);
  Status take_posts();
  Status start(Post& post);
  Status tick();
  Status take_loss(CrewMember& member, const resilience::ExitStatus& status);
  Status replace(Post& post);
  void watch_silence();
  void watch_slowness();
  void strike();
  void slow_down();
  void watch_return(Post& post);
  Status look_for_end();
  Status look_at_hosts();
  Status take_host_loss(const Hosts::Host& host);
  Status inherit(const RoleName& server, int64_t lost_host);
  Status want(const RoleName& role);
  Status take_inheritance();
  Status take_wanted();
  ReshardDesk::Office reshard_office();
  Status start_servers(int64_t from, int64_t to);
  Status take_retirement();
  Status retire(size_t post);
  Status add_post(const RoleName& role);
  Status say_roles();
  Clock::time_point when_it_fell_silent() const {
    return Clock::now() -
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.host_silence_s));
  }
  void vanish();
  void leave(const Status& status);
  void emit(Event event);
  void say(const resilience::OutputLine& line) const;
  Post* post_of(int64_t process);
  int64_t steps() const;

  const SupervisorOptions& options_;
  resilience::Crew crew_;
  std::unique_ptr<StoreServer> server_;
  std::shared_ptr<Store> store_;
  std::string token_, store_address_;
  std::vector<Post> posts_;
  std::vector<Strike> strikes_;
  std::vector<int64_t> slowed_;  // processes that a strike lets run for a part of the time only
  int64_t ticks_ = 0;
  std::string slow_;  // the last that was said about a slow role
  Clock::time_point looked_at_ = Clock::now();
  std::optional<Hosts> hosts_;
  std::string wanted_;  // what this owner of the store has asked for
  int64_t num_wanted_ = 0;
  std::map<std::string, Clock::time_point> offers_;  // roles of lost hosts, since when they are known here
  bool ended_ = false, vanished_ = false;
  SupervisorResult result_;
  std::vector<int64_t> retired_;        // processes that were told to end
  std::string kept_;                    // the last word on servers that end
  std::optional<ReshardDesk> reshard_;  // of the owner of the store; last: it ends before what it uses
};

Result<SupervisorResult> Supervisor::run() {
  Status status = begin();
  while (status.ok() && !ended_ && !vanished_) status = tick();
  if (vanished_) return std::move(result_);
  leave(status);
  if (!status.ok()) return status.error();
  return std::move(result_);
}

// The first host may start later than the others.
Status Supervisor::connect(const std::string& host, int port) {
  const Deadline deadline = Deadline::after(options_.start_s);
  for (;;) {
    auto store = connect_store(host, port, token_, deadline);
    if (store) return store_ = std::move(*store), Status();
    if (deadline.passed()) return store.error();
    std::this_thread::sleep_for(std::chrono::duration<double>(kLook_s));
  }
}

Status Supervisor::meet() {
  token_ = options_.token.empty() ? comm::random_name() : options_.token;
  store_address_ = options_.join;
  if (options_.join.empty()) {
    TESSERA_ASSIGN_OR_RETURN(server_, StoreServer::start(options_.address, options_.port, token_));
    store_address_ = fmt::format("{}:{}", options_.address, server_->port());
    store_ = server_->store();
    return {};
  }
  const size_t colon = options_.join.rfind(':');
  int port = 0;
  std::string digits = colon == std::string::npos ? "" : options_.join.substr(colon + 1);
  auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (digits.empty() || failure != std::errc() || end != digits.data() + digits.size())
    return invalid("'{}' is no HOST:PORT of a job to join", options_.join);
  TESSERA_RETURN_IF_ERROR(connect(options_.join.substr(0, colon), port));
  auto hosts = store_->add(kHosts, 1);
  return hosts ? Status() : Status(hosts.error());
}

Status Supervisor::begin() {
  if (options_.roles.empty()) return invalid("no role to start");
  TESSERA_RETURN_IF_ERROR(meet());
  if (options_.on_meet) options_.on_meet(store_address_);
  TESSERA_ASSIGN_OR_RETURN(hosts_, Hosts::join(store_, options_.host_silence_s));
  strikes_ = options_.strikes;
  for (const RoleName& role : options_.roles) TESSERA_RETURN_IF_ERROR(add_post(role));
  TESSERA_RETURN_IF_ERROR(say_roles());
  if (server_) reshard_.emplace(reshard_office());
  emit({.event = "started",
        .detail = fmt::format("started {} roles; they meet at {}", posts_.size(), store_address_)});
  return {};
}

Status Supervisor::add_post(const RoleName& role) {
  std::error_code failure;  // the server says it
  if (role.kind == RoleName::server && !options_.run.disk.folder.empty())
    std::filesystem::remove_all(disk_folder(options_.run, role), failure);
  Post& post = posts_.emplace_back();
  post.role = role;
  const int64_t files = options_.keep_memory ? memory_files(options_.run, role) : 0;
  if (files > 0) {
    TESSERA_ASSIGN_OR_RETURN(post.memory, recsys::MemoryKeeper::create(files));
  }
  return start(post);
}

Status Supervisor::say_roles() {
  std::vector<RoleName> roles;
  for (const Post& post : posts_) roles.push_back(post.role);
  return hosts_->say_roles(roles);
}

Status Supervisor::start(Post& post) {
  TESSERA_ASSIGN_OR_RETURN(post.process, store_->add(kProcesses, 1));
  resilience::ProcessOptions process{.command = options_.command, .environment = {}, .secret = token_};
  process.command.insert(process.command.end(), {"--role", post.role.text()});
  process.environment["TESSERA_STORE"] = store_address_;
  process.environment["TESSERA_WORKER"] = std::to_string(post.process);
  process.environment["TESSERA_BIND"] = options_.address;
  std::string memory;
  if (post.memory)
    for (const std::string& path : post.memory->paths()) memory += (memory.empty() ? "" : ",") + path;
  process.environment["TESSERA_ROLE_MEMORY"] = memory;
  post.started_at = Clock::now();
  return crew_.start(post.process, process);
}

Status Supervisor::tick() {
  crew_.wait(kTick_s);
  for (auto& [member, status] : crew_.reap()) TESSERA_RETURN_IF_ERROR(take_loss(*member, status));
  slow_down();
  if (seconds_since(looked_at_) < kLook_s) return {};
  looked_at_ = Clock::now();
  crew_.listen(*store_);
  watch_silence();
  watch_slowness();
  strike();
  if (vanished_) return {};
  TESSERA_RETURN_IF_ERROR(look_at_hosts());
  if (reshard_) TESSERA_RETURN_IF_ERROR(reshard_->look());
  TESSERA_RETURN_IF_ERROR(take_retirement());
  for (Post& post : posts_) watch_return(post);
  return look_for_end();
}

Status Supervisor::take_loss(CrewMember& member, const resilience::ExitStatus& status) {
  if (std::erase(retired_, member.id) > 0) return {};
  Post* post = post_of(member.id);
  TESSERA_REQUIRE(post != nullptr, "process {} has no role", member.id);
  crew_.release_output(member);
  const std::string role = post->role.text();
  if (auto fatal = resilience::peek(*store_, resilience::key::fatal(member.id)))
    return make_error(ErrorCode::aborted, "{}", *fatal);
  if (status.success() && post->role.kind == RoleName::trainer) return post->process = -1, Status();
  if (status.signal == 0)
    return make_error(ErrorCode::aborted, "{} ended by itself ({})", role, status.describe());
  std::string why = member.verdict.empty() ? status.describe() : member.verdict;
  const double detect_s = post->struck_at ? seconds_since(*post->struck_at) : member.silence();
  if (!post->lost_at) post->lost_at = post->struck_at ? *post->struck_at : Clock::now();
  post->struck_at.reset();
  emit({.event = "lost",
        .detail = fmt::format("{} {}, noticed after {:.2f} s", role, why, detect_s),
        .worker = member.id,
        .step = steps(),
        .detect_s = detect_s});
  if (!options_.keep_memory && memory_files(options_.run, post->role) > 0)
    return make_error(ErrorCode::aborted, "{} {}, and its state is gone with it", role, why);
  return replace(*post);
}

// Nobody may find the old door again before the new process opens its own.
Status Supervisor::replace(Post& post) {
  if (seconds_since(post.started_at) > kLong_s) post.restarts = 0;
  if (++post.restarts > options_.max_restarts)
    return make_error(ErrorCode::aborted,
                      "{} was replaced {} times in short order and is gone again; see --max-restarts",
                      post.role.text(), options_.max_restarts);
  ++result_.restarts;
  post.steps_when_back = -1;
  // It may have stood still for a move of rows, and its next process will not.
  if (post.role.kind == RoleName::server) TESSERA_RETURN_IF_ERROR(break_move(*store_));
  auto erased = store_->erase_prefix(keys_of(post.role.text()));
  if (!erased) return erased.error();
  return start(post);
}

void Supervisor::watch_silence() {
  for (auto& [id, member] : crew_.members()) {
    double limit = member->joined ? options_.silence_s : options_.start_s;
    if (member->silence() < limit || !member->verdict.empty()) continue;
    member->verdict = fmt::format("gave no sign of life for {:.1f} s; killed", member->silence());
    member->process.signal(SIGKILL);
  }
}

void Supervisor::watch_slowness() {
  auto line = resilience::peek(*store_, kSlow);
  if (!line || *line == slow_) return;
  slow_ = *line;
  emit({.event = "slow", .detail = slow_, .step = steps()});
}

// A tick in four.
void Supervisor::slow_down() {
  ++ticks_;
  for (int64_t process : slowed_)
    if (auto member = crew_.members().find(process); member != crew_.members().end())
      member->second->process.signal(ticks_ % 4 == 0 ? SIGCONT : SIGSTOP);
}

int64_t Supervisor::steps() const {
  auto text = resilience::peek(*store_, resilience::key::steps);
  return text ? std::atoll(text->c_str()) : 0;
}

void Supervisor::strike() {
  const auto phase = reshard_ ? reshard_->phase() : std::nullopt;
  std::erase_if(strikes_, [&](const Strike& strike) {
    if (strike.phase ? phase != strike.phase : steps() < strike.step) return false;
    if (strike.host) return vanish(), true;
    for (Post& post : posts_) {
      if (!(post.role == strike.role) || post.process < 0) continue;
      auto member = crew_.members().find(post.process);
      if (member == crew_.members().end() || !member->second->joined) return false;
      if (strike.slow) return slowed_.push_back(post.process), true;
      post.struck_at = Clock::now();
      member->second->process.signal(strike.signal);
      return true;
    }
    return true;  // not here
  });
  if (phase) reshard_->phase_seen();
}

// ---- hosts ----

Status Supervisor::look_at_hosts() {
  hosts_->beat();
  if (hosts_->given_up())
    return make_error(
        ErrorCode::aborted,
        "host {} was silent for {:.0f} s and was given up: others have taken the place of its roles",
        hosts_->number(), options_.host_silence_s);
  if (server_)
    for (const Hosts::Host& host : hosts_->newly_lost()) TESSERA_RETURN_IF_ERROR(take_host_loss(host));
  TESSERA_RETURN_IF_ERROR(take_inheritance());
  return take_wanted();
}

Status Supervisor::take_host_loss(const Hosts::Host& host) {
  std::vector<std::string> roles;
  for (const RoleName& role : host.roles) roles.push_back(role.text());
  emit({.event = "lost",
        .detail =
            fmt::format("host {} with {} gave no sign of life for {:.1f} s and is given up, with its memory",
                        host.number, fmt::join(roles, ", "), options_.host_silence_s),
        .step = steps(),
        .detect_s = options_.host_silence_s});
  TESSERA_ASSIGN_OR_RETURN([[maybe_unused]] int64_t hosts, store_->add(kHosts, -1));
  for (const RoleName& role : host.roles) {
    if (role.kind == RoleName::trainer)
      return make_error(ErrorCode::aborted, "{} is gone with host {}, and its weights are gone with it",
                        role.text(), host.number);
    TESSERA_ASSIGN_OR_RETURN([[maybe_unused]] int64_t erased, store_->erase_prefix(keys_of(role.text())));
    const RoleName replica{RoleName::replica, role.number};
    if (role.kind == RoleName::server) TESSERA_RETURN_IF_ERROR(inherit(role, host.number));
    TESSERA_RETURN_IF_ERROR(want(role.kind == RoleName::server ? replica : role));
  }
  return {};
}

// Nobody may find the doors of the lost server and of the replica that is one no more.
Status Supervisor::inherit(const RoleName& server, int64_t lost_host) {
  const RoleName replica{RoleName::replica, server.number};
  const int64_t heir = hosts_->host_of(replica);
  if (heir == 0)
    return make_error(
        ErrorCode::aborted,
        "{} is gone with host {}, and no other host holds a replica of its rows; train.replicas=1 "
        "keeps one where --roles puts it",
        server.text(), lost_host);
  auto erased = store_->erase_prefix(keys_of(replica.text()));
  if (!erased) return erased.error();
  TESSERA_RETURN_IF_ERROR(begin_term(*store_, server.number));
  return store_->set(heir_key(server.number), std::to_string(heir));
}

Status Supervisor::want(const RoleName& role) {
  wanted_ += fmt::format("{}{}#{}", wanted_.empty() ? "" : " ", role.text(), ++num_wanted_);
  return store_->set(kWanted, wanted_);
}

// A replica here whose server is gone is the server from now on; its process hears of it by itself.
Status Supervisor::take_inheritance() {
  for (Post& post : posts_) {
    if (post.role.kind != RoleName::replica || post.process < 0) continue;
    const std::string key = heir_key(post.role.number);
    if (resilience::peek(*store_, key) != std::to_string(hosts_->number())) continue;
    auto erased = store_->erase_prefix(key);
    if (!erased) return erased.error();
    const std::string before = post.role.text();
    post.role.kind = RoleName::server;
    post.lost_at = when_it_fell_silent();
    post.steps_when_back = -1;
    TESSERA_RETURN_IF_ERROR(store_->set(promotion_key(post.process), post.role.text()));
    TESSERA_RETURN_IF_ERROR(say_roles());
    emit({.event = "promoted",
          .detail = fmt::format("{} takes the place of {}", before, post.role.text()),
          .worker = post.process,
          .step = steps()});
  }
  return {};
}

// Roles of lost hosts go to whoever takes them first.
Status Supervisor::take_wanted() {
  const std::string text = resilience::peek(*store_, kWanted).value_or("");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string offer = text.substr(begin, end - begin);
    begin = end + 1;
    const auto known = offers_.try_emplace(offer, Clock::now()).first;
    if (known->second == Clock::time_point::max()) continue;  // settled
    TESSERA_ASSIGN_OR_RETURN(RoleName role, parse_role(offer.substr(0, offer.find('#'))));
    const bool own_server = std::any_of(posts_.begin(), posts_.end(), [&](const Post& post) {
      return post.role == RoleName{RoleName::server, role.number};
    });
    if (role.kind == RoleName::replica && own_server && seconds_since(known->second) < kDefer_s) continue;
    known->second = Clock::time_point::max();
    TESSERA_ASSIGN_OR_RETURN(int64_t claims, store_->add("recsys-claims/" + offer, 1));
    if (claims != 1) continue;
    TESSERA_RETURN_IF_ERROR(add_post(role));
    posts_.back().lost_at = when_it_fell_silent();
    TESSERA_RETURN_IF_ERROR(say_roles());
    emit({.event = "moved",
          .detail = fmt::format("{} of a lost host starts on host {}{}", role.text(), hosts_->number(),
                                role.kind == RoleName::replica && own_server
                                    ? ", beside its server: until it moves, only processes may die"
                                    : ""),
          .worker = posts_.back().process,
          .step = steps()});
  }
  return {};
}

// ---- another number of servers ----

ReshardDesk::Office Supervisor::reshard_office() {
  Meeting meeting{.store = store_, .token = token_};
  meeting.bind_address = options_.address;
  meeting.patience_s = kMover_s;
  auto strikes_there = [](const Strike& strike) { return strike.phase.has_value(); };
  return {
      .meeting = std::move(meeting),
      .run_dir = options_.run_dir,
      .run = options_.run,
      .start_servers = [this](int64_t from, int64_t to) { return start_servers(from, to); },
      .waits_at_phases =
          [this, strikes_there] { return std::any_of(strikes_.begin(), strikes_.end(), strikes_there); },
      .emit = [this](const std::string& event,
                     const std::string& detail) { emit({.event = event, .detail = detail, .step = steps()}); },
  };
}

Status Supervisor::start_servers(int64_t from, int64_t to) {
  for (int64_t number = from; number < to; ++number)
    if (const RoleName role{RoleName::server, number}; hosts_->host_of(role) == 0)
      TESSERA_RETURN_IF_ERROR(add_post(role));
  return say_roles();
}

Status Supervisor::take_retirement() {
  auto word = resilience::peek(*store_, kKeptServers);
  if (!word || *word == kept_) return {};
  kept_ = *word;
  const int64_t kept = std::atoll(word->c_str() + word->find(' ') + 1);
  for (size_t i = posts_.size(); i-- > 0;)
    if (posts_[i].role.kind == RoleName::server && posts_[i].role.number >= kept)
      TESSERA_RETURN_IF_ERROR(retire(i));
  return say_roles();
}

Status Supervisor::retire(size_t post) {
  const Post& gone = posts_[post];
  auto erased = store_->erase_prefix(keys_of(gone.role.text()));
  if (!erased) return erased.error();
  retired_.push_back(gone.process);
  if (auto member = crew_.members().find(gone.process); member != crew_.members().end())
    member->second->process.signal(SIGKILL);
  posts_.erase(posts_.begin() + static_cast<std::ptrdiff_t>(post));
  return {};
}

// For drills: as if the power were gone.
void Supervisor::vanish() {
  crew_.signal_all(SIGKILL);
  while (crew_.size() > 0) {
    crew_.wait(kTick_s);
    crew_.reap();
  }
  posts_.clear();
  vanished_ = true;
}

// A lost role has resumed when a step was done after its new process was ready.
void Supervisor::watch_return(Post& post) {
  if (!post.lost_at || post.process < 0) return;
  auto member = crew_.members().find(post.process);
  if (member == crew_.members().end() || !member->second->joined) return;
  const bool serves = post.role.kind != RoleName::trainer || options_.run.trainers > 1;
  if (serves && !resilience::peek(*store_, keys_of(post.role.text()) + "door")) return;
  if (post.steps_when_back < 0) {
    post.steps_when_back = steps();
    return;
  }
  if (steps() <= post.steps_when_back) return;
  const double resume_s = seconds_since(*post.lost_at);
  post.lost_at.reset();
  emit({.event = "resumed",
        .detail = fmt::format("{} is back, and step {} is done {:.2f} s after the loss", post.role.text(),
                              steps(), resume_s),
        .worker = post.process,
        .step = steps(),
        .source = "memory",
        .resume_s = resume_s,
        .steps_redone = 0});
}

// The owner of the store ends the job when all trainers are done; the others follow its word.
Status Supervisor::look_for_end() {
  const int stops = options_.stop ? options_.stop->count.load() : 0;
  if (stops > 0) {
    result_.stopped = ended_ = true;
    return {};
  }
  auto end = store_->try_get(kEnd);
  if (!end) return end.error().within("the job's store is gone");
  if (*end) {
    ended_ = true;
    return (*end)->empty() ? Status() : Status(make_error(ErrorCode::aborted, "{}", **end));
  }
  if (!server_) return {};
  for (int64_t rank = 0; rank < options_.run.trainers; ++rank)
    if (!resilience::peek(*store_, done_key(rank))) return {};
  for (const Post& post : posts_)
    if (post.role.kind == RoleName::trainer && post.process >= 0) return {};
  ended_ = true;
  return {};
}

// Tells the other hosts, gives them time to hear it, and ends the roles that serve.
void Supervisor::leave(const Status& status) {
  if (store_) {
    std::string word = status.ok() ? (result_.stopped ? "stopped" : "") : status.error().message;
    auto end = store_->try_get(kEnd);
    const bool concerns_all = !hosts_ || !hosts_->given_up();
    if (end && !*end && concerns_all) (void)store_->set(kEnd, word);
    if (!server_ && concerns_all) (void)store_->add(kHosts, -1);
    if (hosts_) hosts_->leave();
  }
  for (int64_t process : std::exchange(slowed_, {}))
    if (auto member = crew_.members().find(process); member != crew_.members().end())
      member->second->process.signal(SIGCONT);
  crew_.signal_all(status.ok() && !result_.stopped ? SIGTERM : SIGKILL);
  Deadline grace = Deadline::after(kLeave_s);
  auto hosts_left = [this] {
    auto hosts = server_ ? store_->add(kHosts, 0) : Result<int64_t>(0);
    return hosts && *hosts > 0;
  };
  while ((crew_.size() > 0 || hosts_left()) && !grace.passed()) {
    crew_.wait(kTick_s);
    crew_.reap();
  }
  if (reshard_) reshard_->close();
  if (!status.ok()) emit({.event = "failed", .detail = status.error().message});
  if (status.ok())
    emit({.event = result_.stopped ? "stopped" : "finished",
          .detail = fmt::format("{} after {} restart{}", result_.stopped ? "stopped" : "finished",
                                result_.restarts, result_.restarts == 1 ? "" : "s")});
}

Post* Supervisor::post_of(int64_t process) {
  for (Post& post : posts_)
    if (post.process == process) return &post;
  return nullptr;
}

void Supervisor::emit(Event event) {
  event.time = unix_seconds();
  event.generation = 1 + result_.restarts;
  if (options_.on_event) options_.on_event(event);
  if (!options_.run_dir.empty()) {
    if (Status status = append(event, options_.run_dir / "events.jsonl"); !status.ok())
      log(LogLevel::warn, "{}", status.error().message);
  }
  result_.events.push_back(std::move(event));
}

void Supervisor::say(const resilience::OutputLine& line) const {
  if (!options_.on_line) return;
  for (const Post& post : posts_)
    if (post.process == line.worker) return options_.on_line(line, post.role);
}

}  // namespace

std::string promotion_key(int64_t process) {
  return fmt::format("recsys-promotion/{}", process);
}

Result<SupervisorResult> supervise(const SupervisorOptions& options) {
  return Supervisor(options).run();
}

Status finish_together(Store& store, const recsys_train::RunConfig& run, int64_t rank) {
  TESSERA_RETURN_IF_ERROR(store.set(done_key(rank), "done"));
  Deadline deadline = Deadline::after(kFinish_s);
  for (int64_t other = 0; other < run.trainers; ++other) {
    auto done = store.get(done_key(other), deadline);
    if (!done) return done.error().within(fmt::format("{} has not finished", trainer_role(other)));
  }
  return {};
}

}  // namespace tessera::recsys_roles
