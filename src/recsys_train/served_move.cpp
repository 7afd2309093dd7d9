// ServedStore: what it takes to become another server of another number of them.
#include <algorithm>

#include "core/clock.h"
#include "recsys_train/served_store.h"

namespace tessera::recsys_train {
namespace {

constexpr double kReaders_s = 10;  // for gets under way to end

}  // namespace

Error ServedStore::moved() const {
  return make_error(ErrorCode::unavailable, "rows have moved: server {} is one of {} by map {}", seat_.server,
                    seat_.servers, seat_.map);
}

// REQUIRES: mutex_ is held.
Status ServedStore::await_motion(uint64_t map, bool clean, std::unique_lock<std::mutex>& lock) {
  auto until = Deadline::after(options_.timeout_s).at;
  auto may_go = [&] { return is_stale(map) || (!still_ && !(clean && cleaning_)); };
  if (!changed_.wait_until(lock, until, may_go))
    return make_error(ErrorCode::deadline_exceeded, "rows have been on the move for {:.0f} s",
                      options_.timeout_s);
  return is_stale(map) ? Status(moved()) : Status();
}

Status ServedStore::check_seat(uint64_t map) {
  std::lock_guard lock(mutex_);
  return is_stale(map) ? Status(moved()) : Status();
}

Status ServedStore::get_by_map(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                               const GetOptions& options, int64_t* applied_before) {
  {
    std::unique_lock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(await_steps(group, options.needs_step, options.map, lock));
    TESSERA_RETURN_IF_ERROR(await_motion(options.map, false, lock));
    if (applied_before != nullptr) *applied_before = applied_steps(group);
    ++reading_;
  }
  Status status = store_->get(group, ids, rows, options.access);
  std::lock_guard lock(mutex_);
  --reading_;
  if (still_) changed_.notify_all();
  return status;
}

void ServedStore::take_seat(const ServerSeat& seat) {
  {
    std::lock_guard lock(mutex_);
    cleaning_ = cleaning_ || seat.map != seat_.map;
    seat_ = seat;
    hold_ = UINT64_MAX;
    still_ = false;
  }
  changed_.notify_all();
  // Versions to serve begin anew: their deltas are of the servers before.
  std::lock_guard versions(versioning_);
  version_.reset();
}

Status ServedStore::clean() {
  ServerSeat seat;
  {
    std::lock_guard lock(mutex_);
    seat = seat_;
  }
  const recsys::SlotMap& map = recsys::slot_map(static_cast<uint32_t>(seat.servers));
  auto gone = store_->keep_only([&](uint64_t id) { return map.server_of(id) == seat.server; });
  {
    std::lock_guard lock(mutex_);
    cleaning_ = false;
  }
  changed_.notify_all();
  return gone ? Status() : Status(gone.error());
}

uint64_t ServedStore::latest() {
  std::lock_guard lock(mutex_);
  return last_sequence();
}

// Of the puts that were applied or are under way. REQUIRES: mutex_ is held.
uint64_t ServedStore::last_sequence() const {
  uint64_t last = *std::max_element(applied_.begin(), applied_.end());
  for (const auto& [sender, sequence] : busy_) last = std::max(last, sequence);
  return last;
}

Status ServedStore::hold_at(int64_t step) {
  std::lock_guard lock(mutex_);
  if (uint64_t last = last_sequence(); last > static_cast<uint64_t>(step))
    return make_error(ErrorCode::aborted, "a put of step {} came before the hold at step {}", last - 1, step);
  hold_ = static_cast<uint64_t>(step);
  return {};
}

ServedStore::Stand ServedStore::stand_still(int64_t step) {
  std::unique_lock lock(mutex_);
  if (hold_ != static_cast<uint64_t>(step)) return Stand::not_yet;
  const bool all = std::all_of(applied_.begin(), applied_.end(), [&](uint64_t last) { return last == hold_; });
  if (!all || !busy_.empty() || cleaning_) return Stand::not_yet;
  if (save_pending_) return Stand::saving;
  still_ = true;
  if (changed_.wait_until(lock, Deadline::after(kReaders_s).at, [&] { return reading_ == 0; }))
    return Stand::still;
  still_ = false;
  changed_.notify_all();
  return Stand::not_yet;
}

void ServedStore::release() {
  {
    std::lock_guard lock(mutex_);
    hold_ = UINT64_MAX;
    still_ = false;
  }
  changed_.notify_all();
}

Status ServedStore::begin_at(int64_t step) {
  {
    std::lock_guard lock(mutex_);
    TESSERA_RETURN_IF_ERROR(start_at(step));
  }
  changed_.notify_all();
  return {};
}

}  // namespace tessera::recsys_train
