#include "recsys_train/served_store.h"

#include <algorithm>

#include "core/clock.h"
#include "core/hash.h"

namespace tessera::recsys_train {

ServedStore::ServedStore(std::unique_ptr<recsys::Store> store, ServingOptions options)
    : store_(std::move(store)), options_(options) {
  const int64_t groups = store_->num_groups();
  applied_.resize(static_cast<size_t>(groups * options_.parts));
  for (int64_t part = 0; part < options_.parts; ++part)
    for (int64_t group = 0; group < groups; ++group)
      applied(group, part) = store_->applied(sender_of(part, group, groups));
}

// REQUIRES: mutex_ is held.
int64_t ServedStore::applied_steps(int64_t group) {
  uint64_t least = applied(group, 0);
  for (int64_t part = 1; part < options_.parts; ++part) least = std::min(least, applied(group, part));
  return static_cast<int64_t>(least);
}

// Whether every put before this one has been applied. REQUIRES: mutex_ is held.
bool ServedStore::is_next(int64_t group, int64_t part, uint64_t sequence) {
  for (int64_t other = 0; other < options_.parts; ++other)
    if (applied(group, other) + (other < part ? 0 : 1) < sequence) return false;
  return true;
}

Status ServedStore::await_steps(int64_t group, int64_t steps, std::unique_lock<std::mutex>& lock) {
  auto until = Deadline::after(options_.timeout_s).at;
  if (changed_.wait_until(lock, until, [&] { return applied_steps(group) >= steps; })) return {};
  return make_error(ErrorCode::deadline_exceeded,
                    "a get needs the gradients of {} steps in group {}; after {:.0f} s there are {}", steps,
                    store_->group(group).name, options_.timeout_s, applied_steps(group));
}

Status ServedStore::get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                        const GetOptions& options, int64_t* applied_before) {
  if (options.needs_step > 0 || applied_before != nullptr) {
    std::unique_lock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(await_steps(group, options.needs_step, lock));
    if (applied_before != nullptr) *applied_before = applied_steps(group);
  }
  return store_->get(group, ids, rows, options.access);
}

Status ServedStore::put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                        const recsys::PutOptions& options) {
  TESSERA_RETURN_IF_ERROR(put_once(group, ids, gradients, options));
  if (options.sequence == 0) return {};
  std::unique_lock lock(mutex_);
  auto forward = forward_;
  lock.unlock();
  return forward ? (*forward)(group, ids, gradients, options) : Status();
}

void ServedStore::forward_to(Forward forward) {
  std::lock_guard lock(mutex_);
  forward_ = std::make_shared<const Forward>(std::move(forward));
}

Status ServedStore::put_once(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                             const recsys::PutOptions& options) {
  if (options.sequence == 0) {
    auto counted = store_->put(group, ids, gradients, options);
    return counted.ok() ? Status() : Status(counted.error());
  }
  const int64_t groups = store_->num_groups();
  const int64_t part = (static_cast<int64_t>(options.sender) - 1 - group) / groups;
  if (part < 0 || part >= options_.parts || options.sender != sender_of(part, group, groups))
    return make_error(ErrorCode::data_loss, "a put of sender {} in group {}: {} parts of a step, {} groups",
                      options.sender, group, options_.parts, groups);
  // A sender that died may have left its put under way when the next one repeats it.
  auto may_go = [&] {
    if (copying_ || is_busy(group, part)) return false;
    return options.sequence <= applied(group, part) || !options_.ordered ||
           is_next(group, part, options.sequence);
  };
  {
    std::unique_lock lock(mutex_);
    auto until = Deadline::after(options_.timeout_s).at;
    if (!changed_.wait_until(lock, until, may_go))
      return make_error(ErrorCode::deadline_exceeded,
                        "the put of step {} part {} waited {:.0f} s for the puts before it",
                        options.sequence - 1, part, options_.timeout_s);
    if (options.sequence <= applied(group, part)) return {};
    busy_.insert(options.sender);
  }
  auto counted = store_->put(group, ids, gradients, options);
  {
    std::lock_guard lock(mutex_);
    busy_.erase(options.sender);
    if (counted) applied(group, part) = std::max(applied(group, part), options.sequence);
  }
  changed_.notify_all();
  return counted ? Status() : Status(counted.error());
}

// Puts that are under way end first, and those that come meanwhile wait, so that rows and sequences are of one
// moment.
Status ServedStore::copy_to(const std::string& path, std::vector<uint64_t>& applied) {
  {
    std::unique_lock lock(mutex_);
    auto until = Deadline::after(options_.timeout_s).at;
    if (!changed_.wait_until(lock, until, [&] { return busy_.empty() && !copying_; }))
      return make_error(ErrorCode::deadline_exceeded, "puts are under way for {:.0f} s: no copy of the rows",
                        options_.timeout_s);
    copying_ = true;
    applied = applied_;
  }
  auto go_on = [this] {
    std::lock_guard lock(mutex_);
    copying_ = false;
    changed_.notify_all();
  };
  auto saved = store_->save(path, recsys::Store::SnapshotKind::full, go_on);
  if (!saved) go_on();
  return saved ? Status() : Status(saved.error());
}

namespace {

constexpr uint64_t kAdopted = uint64_t{1} << 62;  // a sender that is nobody: its one put marks a whole copy

}  // namespace

Status ServedStore::adopt(const std::string& path, std::span<const uint64_t> applied) {
  if (applied.size() != applied_.size())
    return make_error(ErrorCode::data_loss,
                      "a copy with {} senders, expected {}; do all roles have the same configuration?",
                      applied.size(), applied_.size());
  const std::string files[] = {path};
  TESSERA_RETURN_IF_ERROR(store_->load(files));
  const int64_t groups = store_->num_groups();
  auto mark = [&](uint64_t sender, uint64_t sequence) {
    auto marked = store_->put(0, {}, {}, {.step = 0, .sender = sender, .sequence = sequence});
    return marked ? Status() : Status(marked.error());
  };
  for (int64_t part = 0; part < options_.parts; ++part)
    for (int64_t group = 0; group < groups; ++group) {
      const uint64_t sequence = applied[static_cast<size_t>(part * groups + group)];
      if (sequence != 0) TESSERA_RETURN_IF_ERROR(mark(sender_of(part, group, groups), sequence));
    }
  std::copy(applied.begin(), applied.end(), applied_.begin());
  return mark(kAdopted, 1);
}

bool ServedStore::has_adopted() const {
  return store_->applied(kAdopted) != 0;
}

Result<uint64_t> ServedStore::digest(int64_t group, int64_t step) {
  uint64_t sum = 0;
  {
    std::unique_lock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(await_steps(group, step, lock));
  }
  TESSERA_RETURN_IF_ERROR(store_->for_each(group, [&](uint64_t, std::span<const std::byte> record) {
    sum += hash64(record, static_cast<uint64_t>(group));
  }));
  return sum;
}

}  // namespace tessera::recsys_train
