// Another number of embedding servers on a person's word: `tessera recsys reshard` leaves an order in the
// folder of a run, the supervisor that owns the job's store takes it and says how it goes.
//
//   RUN_DIR/reshard-order.json   {"id": random, "servers": M}; removed when it is taken
//   RUN_DIR/reshard.json         {"id", "state": "running", "done" or "failed", "detail", "from", "servers",
//                                "rows", "bytes", "step", "hand_over_s", "total_s"}
//
// Threads: functions any.
#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "recsys_roles/mover.h"

namespace tessera::recsys_roles {

struct ReshardOrder {
  std::string id;
  int64_t servers = 0;
};
struct ReshardStatus {
  std::string id, state, detail;
  int64_t from = 0;
  MoveResult result;  // when it is done
  int64_t servers = 0;
};

// Errors: the folder is none of a run, or another order waits there.
Result<ReshardOrder> leave_order(const std::filesystem::path& run_dir, int64_t servers);
// Nothing when there is none, or one that cannot be read.
std::optional<ReshardOrder> take_order(const std::filesystem::path& run_dir);
void withdraw_order(const std::filesystem::path& run_dir);
bool order_waits(const std::filesystem::path& run_dir);
Status write_status(const std::filesystem::path& run_dir, const ReshardStatus& status);
std::optional<ReshardStatus> read_status(const std::filesystem::path& run_dir);

// A move on a thread of its own; the supervisor looks at it. Threads: one, beside that.
class Resharding {
 public:
  // `waits`: at each phase until phase_seen(), for drills that strike there.
  Resharding(ReshardOrder order, MoverOptions options, bool waits);
  ~Resharding();

  const ReshardOrder& order() const { return order_; }
  // What was said since the last call.
  std::vector<std::string> news();
  std::optional<MovePhase> phase() const;  // that waits to be seen
  void phase_seen();
  const std::optional<Result<MoveResult>>& finished();

 private:
  void progress(MovePhase phase, const std::string& detail);

  const ReshardOrder order_;
  const bool waits_;
  mutable std::mutex mutex_;  // what follows
  std::vector<std::string> news_;
  std::optional<MovePhase> phase_;
  std::optional<Result<MoveResult>> result_;
  std::atomic<bool> stop_ = false, finished_ = false;
  std::thread thread_;
};

}  // namespace tessera::recsys_roles
