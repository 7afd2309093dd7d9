#include "cli/torch/rank_team.h"

#include <fcntl.h>
#include <signal.h>

#include <cstdlib>
#include <fstream>
#include <random>

#include "cli/torch/rank_meeting.h"
#include "core/log.h"

namespace tessera::cli {

using resilience::CrewMember;

namespace {

constexpr const char* kRank = "TESSERA_SERVE_RANK";
constexpr const char* kLayout = "TESSERA_SERVE_LAYOUT";
constexpr const char* kStore = "TESSERA_SERVE_STORE_PORT";
constexpr const char* kToken = "TESSERA_SERVE_TOKEN";
constexpr const char* kKvTokens = "TESSERA_SERVE_KV_TOKENS";
constexpr const char* kRole = "TESSERA_SERVE_ROLE";
constexpr const char* kAfter = "TESSERA_SERVE_AFTER";

constexpr double kLookSeconds = 0.05;  // between two looks at the members
constexpr double kStuckSeconds = 10;   // a rank with weights that does not answer a call
constexpr double kEndSeconds = 10;     // from the end of the server to the end of a process
constexpr int64_t kMostLosses = 3;     // during one meeting: whoever ends on each start does not come back

std::string fresh_token() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

// The words of this very command, for the ranks to be started with.
std::vector<std::string> own_command() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  words.front() = "/proc/self/exe";
  return words;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

int64_t number(const char* name) {
  return std::atoll(variable(name).c_str());
}

// What ranks print is for people, so it goes where this rank's own log goes.
void pass_on(const resilience::OutputLine& line) {
  std::fprintf(stderr, "%s\n", line.text.c_str());
}

}  // namespace

std::optional<RankPlace> rank_place() {
  auto layout = parse_layout(variable(kLayout));
  if (variable(kRank).empty() || !layout) return std::nullopt;
  return RankPlace{.rank = number(kRank),
                   .layout = *layout,
                   .store_port = static_cast<int>(number(kStore)),
                   .token = variable(kToken),
                   .kv_tokens = number(kKvTokens),
                   .role = variable(kRole),
                   .after = number(kAfter)};
}

RankTeam::RankTeam(const Options& options) : options_(options), token_(fresh_token()), crew_(pass_on, {}) {}

Result<std::unique_ptr<serve::Team>> RankTeam::start(const Options& options) {
  if (options.layout.processes() == 1) return serve::make_single_team();
  auto team = std::unique_ptr<RankTeam>(new RankTeam(options));
  TESSERA_ASSIGN_OR_RETURN(team->store_server_, StoreServer::start(kMeetingHost, 0, team->token_));
  team->store_ = team->store_server_->store();
  team->supervisor_ = std::thread([team = team.get()] { team->supervise(); });
  return std::unique_ptr<serve::Team>(std::move(team));
}

RankTeam::~RankTeam() {
  ending_ = given_up_ = true;
  if (store_) store_->set(key::generation, key::end).ok();
  if (supervisor_.joinable()) supervisor_.join();
}

std::optional<Error> RankTeam::loss() const {
  std::lock_guard lock(mutex_);
  return loss_;
}

void RankTeam::on_loss(std::function<void()> callback) {
  std::lock_guard lock(callback_mutex_);
  callback_ = std::move(callback);
}

// Children die with the thread that started them, so this one starts them all and stays to the end.
void RankTeam::supervise() {
  for (int64_t rank = 1; rank < size(); ++rank) spawn(rank);
  while (!ending_) {
    crew_.wait(kLookSeconds);
    crew_.listen(*store_);
    look_after_members();
    replace_ended();
  }
  Deadline deadline = Deadline::after(kEndSeconds);
  while (crew_.size() > 0) {
    if (deadline.passed()) crew_.signal_all(SIGKILL);
    crew_.wait(kLookSeconds);
    crew_.reap();
  }
}

// A stopped process cannot say that it is stopped.
void RankTeam::look_after_members() {
  std::set<int64_t> stuck;
  {
    std::lock_guard lock(mutex_);
    stuck = std::exchange(stuck_, {});
  }
  for (auto& [rank, member] : crew_.members()) {
    if (!member->verdict.empty()) continue;
    if (member->joined && member->silence() > options_.silence_s)
      member->verdict = fmt::format("gave no sign of life for {:.1f} s", member->silence());
    else if (stuck.contains(rank))
      member->verdict = fmt::format("did not answer for {} s", kStuckSeconds);
    if (member->verdict.empty()) continue;
    member->process.signal(SIGKILL);
    lose(rank, member->verdict);
  }
}

void RankTeam::replace_ended() {
  for (auto& [member, status] : crew_.reap()) {
    crew_.release_output(*member);
    if (ending_) continue;
    if (member->verdict.empty()) lose(member->id, status.describe());
    spawn(member->id);
  }
}

void RankTeam::spawn(int64_t rank) {
  store_->erase_prefix(key::loaded(rank)).ok();
  store_->erase_prefix(resilience::key::beat(rank)).ok();
  int64_t after = 0;
  {
    std::lock_guard lock(mutex_);
    after = lost_in_[rank];
  }
  resilience::ProcessOptions options{.command = own_command()};
  options.environment = {{kRank, std::to_string(rank)},
                         {kLayout, to_string(options_.layout)},
                         {kStore, std::to_string(store_server_->port())},
                         {kToken, token_},
                         {kKvTokens, std::to_string(options_.kv_tokens)},
                         {kRole, options_.role},
                         {kAfter, std::to_string(after)}};
  if (Status started = crew_.start(rank, options); !started.ok()) lose(rank, started.error().message);
}

void RankTeam::lose(int64_t rank, const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    ++num_losses_;
    lost_in_[rank] = generation_;
    const std::string who =
        options_.role.empty() ? fmt::format("rank {} of {}", rank, size()) : options_.role + " worker";
    loss_ = make_error(ErrorCode::unavailable, "{}: {}", who, why);
    if (groups_) groups_->abort(*loss_);
  }
  std::lock_guard lock(callback_mutex_);
  if (callback_) callback_();
}

Status RankTeam::meet() {
  const int64_t losses_before = num_losses_;
  while (!given_up_) {
    int64_t generation = call_generation();
    Status met = await_ready(generation);
    if (met.ok()) met = join(generation);
    if (met.ok()) return {};
    if (given_up_) break;
    log(LogLevel::warn, "the ranks could not meet: {}", met.error().message);
    if (num_losses_ - losses_before >= kMostLosses)
      return met.error().within(fmt::format("{} ranks ended while they started", num_losses_ - losses_before));
  }
  return make_error(ErrorCode::aborted, "the server ends while its ranks meet");
}

int64_t RankTeam::call_generation() {
  std::lock_guard lock(mutex_);
  if (groups_) groups_->abort(make_error(ErrorCode::aborted, "the ranks meet again"));
  groups_.reset();
  loss_.reset();
  store_->erase_prefix(key::ready(generation_, "")).ok();
  store_->set(key::generation, std::to_string(++generation_)).ok();
  return generation_;
}

// Ranks that load may take as long as they give signs of life.
Status RankTeam::await_ready(int64_t generation) {
  auto start = Clock::now();
  while (!everybody_ready(generation, seconds_since(start))) {
    if (auto lost = loss()) return *lost;
    if (given_up_) return make_error(ErrorCode::aborted, "given up");
    std::this_thread::sleep_for(kMeetingPoll);
  }
  return {};
}

bool RankTeam::everybody_ready(int64_t generation, double waited_s) {
  bool all = true;
  for (int64_t rank = 1; rank < size(); ++rank) {
    if (resilience::peek(*store_, key::ready(generation, std::to_string(rank)))) continue;
    all = false;
    if (waited_s < kStuckSeconds || !resilience::peek(*store_, key::loaded(rank))) continue;
    std::lock_guard lock(mutex_);
    stuck_.insert(rank);
  }
  return all;
}

Status RankTeam::join(int64_t generation) {
  TESSERA_RETURN_IF_ERROR(store_->set(key::go, std::to_string(generation)));
  TESSERA_ASSIGN_OR_RETURN(auto groups,
                           join_generation(*store_, {.layout = options_.layout, .token = token_}, generation));
  std::lock_guard lock(mutex_);
  if (loss_) return *loss_;
  groups_ = std::move(groups);
  return {};
}

}  // namespace tessera::cli
