#include "recsys_roles/reshard_desk.h"

#include <fmt/format.h>

#include "core/log.h"

namespace tessera::recsys_roles {
namespace {

constexpr double kLetGo_s = 1;  // before servers that gave their rows away end

}  // namespace

Status ReshardDesk::look() {
  if (next_kept_ && Clock::now() >= next_kept_->first) {
    TESSERA_RETURN_IF_ERROR(office_.meeting.store->set(kKeptServers, next_kept_->second));
    next_kept_.reset();
  }
  if (move_) return follow(), Status();
  if (office_.run_dir.empty() || next_kept_) return {};
  auto order = take_order(office_.run_dir);
  if (!order) return {};
  Status begun = begin(*order);
  if (begun.ok()) return {};
  const std::string& why = begun.error().message;
  office_.emit("reshard", "servers stay as they are: " + why);
  tell({.id = order->id, .state = "failed", .detail = why, .servers = order->servers});
  return {};
}

Status ReshardDesk::begin(const ReshardOrder& order) {
  if (office_.run.replicas > 0)
    return invalid(
        "the number of servers of a job with replicas cannot change while it runs; take a checkpoint and "
        "resume from it with another train.servers");
  if (order.servers < 1 || order.servers > recsys::SlotMap::kSlots)
    return invalid("{} servers: expected 1 to {}", order.servers, recsys::SlotMap::kSlots);
  TESSERA_ASSIGN_OR_RETURN(ServerMap map, read_map(*office_.meeting.store, office_.run.servers));
  if (map.servers == order.servers) return invalid("the job has {} servers already", map.servers);
  TESSERA_RETURN_IF_ERROR(office_.start_servers(map.servers, order.servers));
  MoverOptions mover{.meeting = office_.meeting, .configured = office_.run.servers, .to = order.servers};
  move_ = std::make_unique<Resharding>(order, std::move(mover), office_.waits_at_phases());
  status_ = {.id = order.id,
             .state = "running",
             .detail = fmt::format("from {} servers to {}", map.servers, order.servers),
             .from = map.servers,
             .servers = order.servers};
  office_.emit("reshard", status_.detail);
  tell(status_);
  return {};
}

void ReshardDesk::follow() {
  for (const std::string& line : move_->news()) {
    office_.emit("reshard", line);
    status_.detail = line;
    tell(status_);
  }
  if (move_->finished()) finish(*move_->finished());
}

// Servers that the job does not have, because they gave their rows away or never got any, end a little later.
void ReshardDesk::finish(const Result<MoveResult>& result) {
  const int64_t kept = result ? status_.servers : status_.from;
  if (result) {
    status_.result = *result;
    status_.state = "done";
    status_.detail =
        fmt::format("{} servers instead of {}: {} rows moved in {:.2f} s; training stood still for {:.3f} s",
                    status_.servers, status_.from, result->rows, result->total_s, result->hand_over_s);
  } else {
    status_.state = "failed";
    status_.detail = fmt::format("{} servers as before: {}", status_.from, result.error().message);
  }
  office_.emit(result ? "resharded" : "reshard", status_.detail);
  tell(status_);
  const auto when =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(kLetGo_s));
  next_kept_ = {when, fmt::format("{} {}", status_.id, kept)};
  move_.reset();
}

void ReshardDesk::tell(const ReshardStatus& status) const {
  if (Status written = write_status(office_.run_dir, status); !written.ok())
    log(LogLevel::warn, "{}", written.error().message);
}

void ReshardDesk::close() {
  if (!move_) return;
  move_.reset();
  status_.state = "failed";
  status_.detail = "the job has ended";
  tell(status_);
}

}  // namespace tessera::recsys_roles
