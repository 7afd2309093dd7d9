// Takes orders for another number of servers (reshard.h), follows the move of rows that each leads to, and says
// how it stands. Once rows have a new owner it tells the supervisors which servers may end.
//
// For the owner of the job's store. Threads: one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/clock.h"
#include "recsys_roles/reshard.h"
#include "recsys_train/run_config.h"

namespace tessera::recsys_roles {

// "K N": servers from N on have given their rows away in move K, and end.
constexpr const char* kKeptServers = "recsys-kept";

class ReshardDesk {
 public:
  struct Office {
    Meeting meeting;  // where the servers of a move are called
    std::filesystem::path run_dir;
    const recsys_train::RunConfig& run;
    // So that servers [from, to) run, or are on their way.
    std::function<Status(int64_t from, int64_t to)> start_servers;
    std::function<bool()> waits_at_phases;  // for drills that strike there
    std::function<void(const std::string& event, const std::string& detail)> emit;
  };
  explicit ReshardDesk(Office office) : office_(std::move(office)) {}

  // To be called again and again. Errors: of the store.
  Status look();
  // Of the move under way, when it waits for phase_seen().
  std::optional<MovePhase> phase() const { return move_ ? move_->phase() : std::nullopt; }
  void phase_seen() { move_->phase_seen(); }
  // The job has ended: a move under way does too.
  void close();

 private:
  Status begin(const ReshardOrder& order);
  void follow();
  void finish(const Result<MoveResult>& result);
  void tell(const ReshardStatus& status) const;

  const Office office_;
  std::optional<std::pair<Clock::time_point, std::string>> next_kept_;  // when to say it
  ReshardStatus status_;
  std::unique_ptr<Resharding> move_;
};

}  // namespace tessera::recsys_roles
