#include "cli/torch/rank_meeting.h"

#include "core/log.h"
#include "resilience/protocol.h"

namespace tessera::cli {

namespace {

constexpr double kConnectSeconds = 60;  // to rank 0's store
constexpr double kJoinSeconds = 10;     // all ranks are ready: only sockets are opened
constexpr double kStepSeconds = 60;     // one collective; idle ranks hear of rank 0 more often
constexpr auto kBeat = std::chrono::milliseconds(100);

}  // namespace

std::string key::loaded(int64_t rank) {
  return fmt::format("serve/loaded/{}", rank);
}

std::string key::ready(int64_t generation, const std::string& rank) {
  return fmt::format("serve/ready/{}/{}", generation, rank);
}

Result<serve::OwnedGroups> join_generation(Store& store, const RankPlace& place, int64_t generation) {
  auto join = [&](const std::string& name, std::vector<int64_t> members) -> Result<std::unique_ptr<Group>> {
    TESSERA_ASSIGN_OR_RETURN(auto group,
                             make_process_group(store, {.name = fmt::format("{}-{}", name, generation),
                                                        .members = std::move(members),
                                                        .my_rank = place.rank,
                                                        .token = place.token,
                                                        .timeout_s = kJoinSeconds}));
    group->set_timeout(kStepSeconds);
    return group;
  };
  return serve::OwnedGroups::make(place.layout, place.rank, join);
}

RankMember::RankMember(RankPlace place, std::shared_ptr<Store> store)
    : place_(std::move(place)), store_(std::move(store)), joined_(place_.after), beats_([this] { beat(); }) {}

RankMember::~RankMember() {
  leaving_ = true;
  beats_.join();
}

Result<std::unique_ptr<RankMember>> RankMember::connect(const RankPlace& place) {
  TESSERA_ASSIGN_OR_RETURN(
      auto store, connect_store(kMeetingHost, place.store_port, place.token, Deadline::after(kConnectSeconds)));
  return std::unique_ptr<RankMember>(new RankMember(place, std::move(store)));
}

void RankMember::beat() {
  for (int64_t count = 1; !leaving_; ++count) {
    std::string text = encode(resilience::Beat{.count = count});
    if (!store_->set(resilience::key::beat(place_.rank), text).ok()) return;
    std::this_thread::sleep_for(kBeat);
  }
}

void RankMember::loaded() {
  store_->set(key::loaded(place_.rank), "").ok();
}

Result<std::optional<serve::OwnedGroups>> RankMember::next_groups() {
  while (true) {
    TESSERA_ASSIGN_OR_RETURN(int64_t generation, next_generation());
    if (generation == 0) return std::optional<serve::OwnedGroups>();
    joined_ = generation;
    auto groups = join_generation(*store_, place_, generation);
    if (groups) return std::optional(std::move(*groups));
    log(LogLevel::warn, "{}", groups.error().message);
  }
}

Result<int64_t> RankMember::next_generation() {
  int64_t answered = joined_;
  while (true) {
    TESSERA_ASSIGN_OR_RETURN(auto called, store_->try_get(key::generation));
    if (called == key::end) return 0;
    int64_t generation = called ? std::atoll(called->c_str()) : 0;
    if (generation > answered) {
      TESSERA_RETURN_IF_ERROR(store_->set(key::ready(generation, std::to_string(place_.rank)), ""));
      answered = generation;
    }
    TESSERA_ASSIGN_OR_RETURN(auto go, store_->try_get(key::go));
    if (answered > joined_ && go == std::to_string(answered)) return answered;
    std::this_thread::sleep_for(kMeetingPoll);
  }
}

}  // namespace tessera::cli
