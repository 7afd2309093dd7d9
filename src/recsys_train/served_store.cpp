#include "recsys_train/served_store.h"

#include <algorithm>

#include "core/clock.h"
#include "core/hash.h"
#include "recsys_train/checkpoint.h"

namespace tessera::recsys_train {

ServedStore::ServedStore(std::unique_ptr<recsys::Store> store, ServingOptions options)
    : store_(std::move(store)), options_(options) {
  const int64_t groups = store_->num_groups();
  applied_.resize(static_cast<size_t>(groups * options_.parts));
  for (int64_t part = 0; part < options_.parts; ++part)
    for (int64_t group = 0; group < groups; ++group)
      applied(group, part) = store_->applied(sender_of(part, group, groups));
}

ServedStore::~ServedStore() {
  if (writer_.joinable()) writer_.join();
}

Result<std::unique_ptr<ServedStore>> ServedStore::open(recsys::StoreOptions store_options,
                                                       ServingOptions options, int64_t server,
                                                       int64_t num_servers) {
  TESSERA_ASSIGN_OR_RETURN(auto store, recsys::Store::create(std::move(store_options)));
  auto served = std::make_unique<ServedStore>(std::move(store), options);
  if (options.resume.empty() || !served->fresh()) return served;
  TESSERA_ASSIGN_OR_RETURN(Checkpoint checkpoint, read_checkpoint(options.resume));
  for (size_t old = 0; old < checkpoint.servers.size(); ++old)
    TESSERA_RETURN_IF_ERROR(served->store_->load(checkpoint.files_of(old), static_cast<uint32_t>(server),
                                                 static_cast<uint32_t>(num_servers)));
  TESSERA_RETURN_IF_ERROR(served->start_at(checkpoint.standing.step));
  return served;
}

// Whether some sender has put nothing yet: then nobody has been served, since start_at() comes before.
bool ServedStore::fresh() {
  return std::find(applied_.begin(), applied_.end(), uint64_t{0}) != applied_.end();
}

// As if the puts of all earlier steps had been applied. The journal remembers it.
Status ServedStore::start_at(int64_t step) {
  const int64_t groups = store_->num_groups();
  for (int64_t part = 0; step > 0 && part < options_.parts; ++part)
    for (int64_t group = 0; group < groups; ++group) {
      applied(group, part) = static_cast<uint64_t>(step);
      auto marked = store_->put(group, {}, {},
                                {.step = static_cast<uint64_t>(step - 1),
                                 .sender = sender_of(part, group, groups),
                                 .sequence = static_cast<uint64_t>(step)});
      if (!marked) return marked.error();
    }
  return {};
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

Status ServedStore::await_steps(int64_t group, int64_t steps, uint64_t map,
                                std::unique_lock<std::mutex>& lock) {
  auto until = Deadline::after(options_.timeout_s).at;
  if (changed_.wait_until(lock, until, [&] { return is_stale(map) || applied_steps(group) >= steps; }))
    return is_stale(map) ? Status(moved()) : Status();
  return make_error(ErrorCode::deadline_exceeded,
                    "a get needs the gradients of {} steps in group {}; after {:.0f} s there are {}", steps,
                    store_->group(group).name, options_.timeout_s, applied_steps(group));
}

Status ServedStore::get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                        const GetOptions& options, int64_t* applied_before) {
  if (options.map != kAnyMap) return get_by_map(group, ids, rows, options, applied_before);
  if (options.needs_step > 0 || applied_before != nullptr) {
    std::unique_lock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(await_steps(group, options.needs_step, kAnyMap, lock));
    if (applied_before != nullptr) *applied_before = applied_steps(group);
  }
  return store_->get(group, ids, rows, options.access);
}

Status ServedStore::put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                        const recsys::PutOptions& options, uint64_t map) {
  TESSERA_RETURN_IF_ERROR(put_once(group, ids, gradients, options, map));
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
                             const recsys::PutOptions& options, uint64_t map) {
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
    if (is_stale(map)) return true;  // it is told so
    if (copying_ || is_busy(group, part)) return false;
    if (options.sequence <= applied(group, part)) return true;
    return options.sequence <= hold_ && (!options_.ordered || is_next(group, part, options.sequence));
  };
  {
    std::unique_lock lock(mutex_);
    auto until = Deadline::after(options_.timeout_s).at;
    if (!changed_.wait_until(lock, until, may_go))
      return make_error(ErrorCode::deadline_exceeded,
                        "the put of step {} part {} waited {:.0f} s for the puts before it",
                        options.sequence - 1, part, options_.timeout_s);
    if (is_stale(map)) return moved();
    if (options.sequence <= applied(group, part)) return {};
    busy_[options.sender] = options.sequence;
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
  auto saved = store_->save(path, recsys::Store::SnapshotKind::full, go_on, recsys::SnapshotChain::none);
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

Status ServedStore::await_cut(int64_t step, uint64_t map) {
  std::unique_lock lock(mutex_);
  for (int64_t group = 0; group < store_->num_groups(); ++group)
    TESSERA_RETURN_IF_ERROR(await_steps(group, step, map, lock));
  TESSERA_RETURN_IF_ERROR(await_motion(map, true, lock));
  const uint64_t last = *std::max_element(applied_.begin(), applied_.end());
  save_pending_ = last <= static_cast<uint64_t>(step);
  if (save_pending_) return {};
  return make_error(ErrorCode::aborted, "gradients of step {} came before the cut at step {}", last - 1, step);
}

Status ServedStore::begin_save(const std::string& folder, const std::string& name, int64_t step, bool full,
                               uint64_t map) {
  std::lock_guard one_at_a_time(saving_);
  if (saved_step_ == step) return {};
  if (writer_.joinable()) writer_.join();
  TESSERA_RETURN_IF_ERROR(await_cut(step, map));
  saved_step_ = step;
  std::promise<Status> cut;
  auto is_cut = cut.get_future();
  writer_ = std::thread([this, folder, name, full, promise = std::move(cut)]() mutable {
    write(folder, name, full, std::move(promise));
  });
  return is_cut.get();
}

void ServedStore::write(const std::string& folder, const std::string& name, bool full,
                        std::promise<Status> cut) {
  const bool delta = !full && !saved_files_.empty();
  bool was_cut = false;
  auto info = store_->save(folder + "/" + name,
                           delta ? recsys::Store::SnapshotKind::delta : recsys::Store::SnapshotKind::full, [&] {
                             was_cut = true;
                             cut.set_value({});
                           });
  saved_ = info ? Status() : Status(info.error());
  if (!delta || !info) saved_files_.clear();
  if (info) saved_files_.push_back(name);
  if (!was_cut) cut.set_value(saved_);
}

Result<std::vector<std::string>> ServedStore::finish_save(int64_t step) {
  std::lock_guard one_at_a_time(saving_);
  if (saved_step_ != step)
    return make_error(ErrorCode::aborted, "the rows of step {} are lost: the server was replaced meanwhile",
                      step);
  if (writer_.joinable()) writer_.join();
  {
    std::lock_guard lock(mutex_);
    save_pending_ = false;
  }
  if (!saved_.ok()) return saved_.error();
  return saved_files_;
}

Status ServedStore::save_version(const std::string& path, const VersionRequest& version, uint64_t map) {
  {
    std::unique_lock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(await_motion(map, true, lock));
  }
  std::lock_guard one_at_a_time(versioning_);
  if (version_ && version_->id == version.id) return versioned_;
  if (!version.full && (!version_ || !versioned_.ok() || version_->id + 1 != version.id))
    return make_error(ErrorCode::not_found, "{}: there is no version before it here", path);
  using Kind = recsys::Store::SnapshotKind;
  auto info = store_->save(path, version.full ? Kind::full : Kind::delta, {}, recsys::SnapshotChain::versions);
  version_ = version;
  versioned_ = info ? check_seat(map) : Status(info.error());
  return versioned_;
}

Result<uint64_t> ServedStore::digest(int64_t group, int64_t step, uint64_t map) {
  uint64_t sum = 0;
  {
    std::unique_lock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(await_steps(group, step, map, lock));
    TESSERA_RETURN_IF_ERROR(await_motion(map, true, lock));
  }
  TESSERA_RETURN_IF_ERROR(store_->for_each(group, [&](uint64_t, std::span<const std::byte> record) {
    sum += hash64(record, static_cast<uint64_t>(group));
  }));
  TESSERA_RETURN_IF_ERROR(check_seat(map));
  return sum;
}

}  // namespace tessera::recsys_train
