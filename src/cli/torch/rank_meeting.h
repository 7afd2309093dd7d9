// A started rank's side of rank_team.h: its signs of life, and the groups of each generation.
#pragma once

#include <chrono>
#include <memory>
#include <thread>

#include "cli/torch/rank_team.h"

namespace tessera::cli {

inline constexpr const char* kMeetingHost = "127.0.0.1";
inline constexpr auto kMeetingPoll = std::chrono::milliseconds(10);

namespace key {
inline const std::string generation = "serve/generation", go = "serve/go", end = "end";
std::string loaded(int64_t rank);
std::string ready(int64_t generation, const std::string& rank);
}  // namespace key

Result<serve::OwnedGroups> join_generation(Store& store, const RankPlace& place, int64_t generation);

class RankMember {
 public:
  // Gives signs of life from here on. Also makes the process end when rank 0 does.
  static Result<std::unique_ptr<RankMember>> connect(const RankPlace& place);
  ~RankMember();

  void loaded();  // the weights are here
  // Waits for the next call of rank 0 and joins its groups; none when the server ends.
  Result<std::optional<serve::OwnedGroups>> next_groups();

 private:
  RankMember(RankPlace place, std::shared_ptr<Store> store);
  // Waits for a generation whose ranks are all ready; 0 when the server ends.
  Result<int64_t> next_generation();
  void beat();

  RankPlace place_;
  std::shared_ptr<Store> store_;
  int64_t joined_ = 0;  // generation
  std::atomic<bool> leaving_ = false;
  std::thread beats_;
};

}  // namespace tessera::cli
