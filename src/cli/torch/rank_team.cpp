#include "cli/torch/rank_team.h"

#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <thread>

#include "comm/tcp_store.h"
#include "core/file.h"

extern char** environ;

namespace tessera::cli {

namespace {

constexpr const char* kRank = "TESSERA_SERVE_RANK";
constexpr const char* kSize = "TESSERA_SERVE_SIZE";
constexpr const char* kStore = "TESSERA_SERVE_STORE_PORT";
constexpr const char* kToken = "TESSERA_SERVE_TOKEN";
constexpr const char* kKvTokens = "TESSERA_SERVE_KV_TOKENS";
constexpr const char* kHost = "127.0.0.1";
constexpr double kMeetSeconds = 60;  // a rank starts, links libtorch and connects
constexpr double kStepSeconds = 60;  // one collective; idle ranks hear of rank 0 more often
constexpr double kEndSeconds = 10;   // from the stop command to the end of a process

std::string fresh_token() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

// The words of this very command, for the ranks to be started with.
std::vector<std::string> own_command() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

Result<std::unique_ptr<Group>> meet(Store& store, const RankPlace& place) {
  GroupOptions options{.name = "serve", .my_rank = place.rank, .token = place.token, .timeout_s = kMeetSeconds};
  options.members.resize(static_cast<size_t>(place.size));
  std::iota(options.members.begin(), options.members.end(), 0);
  TESSERA_ASSIGN_OR_RETURN(auto group, make_process_group(store, std::move(options)));
  group->set_timeout(kStepSeconds);
  return group;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

std::optional<RankPlace> rank_place() {
  if (variable(kRank).empty()) return std::nullopt;
  return RankPlace{.rank = std::atoll(variable(kRank).c_str()),
                   .size = std::atoll(variable(kSize).c_str()),
                   .store_port = std::atoi(variable(kStore).c_str()),
                   .token = variable(kToken),
                   .kv_tokens = std::atoll(variable(kKvTokens).c_str())};
}

Result<std::unique_ptr<RankTeam>> RankTeam::start(int64_t size, int64_t kv_tokens) {
  auto team = std::unique_ptr<RankTeam>(new RankTeam);
  if (size == 1) {
    team->group_ = make_single_group();
    return team;
  }
  RankPlace place{.size = size, .token = fresh_token(), .kv_tokens = kv_tokens};
  TESSERA_ASSIGN_OR_RETURN(team->store_, StoreServer::start(kHost, 0, place.token));
  place.store_port = team->store_->port();
  for (int64_t rank = 1; rank < size; ++rank) {
    RankPlace other = place;
    other.rank = rank;
    TESSERA_RETURN_IF_ERROR(team->spawn(other));
  }
  TESSERA_ASSIGN_OR_RETURN(team->group_, meet(*team->store_->store(), place));
  return team;
}

Status RankTeam::spawn(const RankPlace& place) {
  std::vector<std::string> words = own_command(), environment;
  for (char** entry = environ; *entry; ++entry) environment.push_back(*entry);
  environment.push_back(fmt::format("{}={}", kRank, place.rank));
  environment.push_back(fmt::format("{}={}", kSize, place.size));
  environment.push_back(fmt::format("{}={}", kStore, place.store_port));
  environment.push_back(fmt::format("{}={}", kToken, place.token));
  environment.push_back(fmt::format("{}={}", kKvTokens, place.kv_tokens));
  pid_t child = 0;
  int failed = posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, pointers(words).data(),
                           pointers(environment).data());
  if (failed) return system_error("start rank", "/proc/self/exe", failed);
  children_.push_back(child);
  return {};
}

RankTeam::~RankTeam() {
  group_.reset();
  Deadline deadline = Deadline::after(kEndSeconds);
  for (pid_t child : children_) {
    while (waitpid(child, nullptr, WNOHANG) == 0) {
      if (deadline.passed()) kill(child, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

Result<std::unique_ptr<Group>> join_team(const RankPlace& place) {
  // Rank 0 decides when to end; a Ctrl-C reaches every process of the terminal.
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  TESSERA_ASSIGN_OR_RETURN(auto store,
                           connect_store(kHost, place.store_port, place.token, Deadline::after(kMeetSeconds)));
  return meet(*store, place);
}

}  // namespace tessera::cli
