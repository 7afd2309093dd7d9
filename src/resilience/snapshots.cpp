#include "resilience/snapshots.h"

#include <algorithm>

#include "checkpoint/memory_pieces.h"
#include "core/clock.h"

namespace tessera::resilience {
namespace {

constexpr size_t kKept = 2;

// Adds the time of a scope to a counter.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += seconds_since(start_); }

 private:
  double& seconds_;
  Clock::time_point start_ = Clock::now();
};

std::vector<Piece> primaries(std::span<const Piece> pieces) {
  std::vector<Piece> chosen;
  for (const Piece& piece : pieces)
    if (piece.primary) chosen.push_back(piece);
  return chosen;
}

}  // namespace

void Snapshots::join(int64_t generation, Group* group, int64_t shift) {
  leave();
  generation_ = generation;
  group_ = group;
  shift_ = shift;
  sizes_.clear();
}

void Snapshots::leave() {
  // An exchange that is complete counts; a failed group answers at once. Its buffers must not go before.
  (void)commit();
  group_ = nullptr;
}

Status Snapshots::take(int64_t step, std::span<const Piece> pieces) {
  TESSERA_REQUIRE(group_ != nullptr && !under_way_, "a snapshot needs a group and the one before committed");
  Stopwatch stopwatch(seconds_);
  std::vector<Piece> mine = primaries(pieces);
  int64_t bytes = checkpoint::serialised_bytes(mine, "");
  TESSERA_RETURN_IF_ERROR(agree_sizes(bytes));

  int64_t ranks = group_->size(), rank = group_->rank();
  auto entry = std::make_unique<Entry>();
  entry->id = {step, generation_};
  entry->own = {{entry->id, ranks, rank, true}, buffer(static_cast<size_t>(bytes))};
  TESSERA_RETURN_IF_ERROR(checkpoint::serialise_pieces(mine, "", entry->own.bytes));
  under_way_ = std::move(entry);
  return ranks == 1 ? Status() : start_exchange();
}

// Sizes follow from the layout, so they are exchanged once in a generation.
Status Snapshots::agree_sizes(int64_t mine) {
  if (!sizes_.empty()) {
    if (sizes_[static_cast<size_t>(group_->rank())] == mine) return {};
    return make_error(ErrorCode::internal, "this rank's state has {} bytes now and had {} before", mine,
                      sizes_[static_cast<size_t>(group_->rank())]);
  }
  std::vector<int64_t> sizes(static_cast<size_t>(group_->size()));
  TESSERA_RETURN_IF_ERROR(group_->all_gather(bytes_of(std::span<const int64_t>(&mine, 1)),
                                             mutable_bytes_of(std::span<int64_t>(sizes))));
  sizes_ = std::move(sizes);
  return {};
}

Status Snapshots::start_exchange() {
  int64_t ranks = group_->size(), rank = group_->rank();
  auto to = static_cast<size_t>((rank + shift_) % ranks);
  auto from = static_cast<size_t>((rank + ranks - shift_ % ranks) % ranks);
  Entry& entry = *under_way_;
  entry.neighbour = {{entry.id, ranks, static_cast<int64_t>(from), false},
                     buffer(static_cast<size_t>(sizes_[from]))};
  std::vector<Bytes> out(static_cast<size_t>(ranks));
  std::vector<MutableBytes> in(static_cast<size_t>(ranks));
  out[to] = entry.own.bytes;
  in[from] = entry.neighbour.bytes;
  pending_ = group_->start_all_to_all(std::move(out), std::move(in));
  return {};
}

Status Snapshots::commit() {
  if (!under_way_) return {};
  Stopwatch stopwatch(seconds_);
  Status status = pending_ ? pending_->wait() : Status();
  pending_.reset();
  std::unique_ptr<Entry> entry = std::move(under_way_);
  if (!status.ok()) {
    recycle(std::move(*entry));
    return status.error().within("snapshot");
  }
  complete_.push_back(std::move(*entry));
  while (complete_.size() > kKept) {
    recycle(std::move(complete_.front()));
    complete_.pop_front();
  }
  return {};
}

std::vector<HeldPart> Snapshots::held() const {
  std::vector<HeldPart> held;
  for (const Entry& entry : complete_) {
    held.push_back(entry.own.what);
    if (!entry.neighbour.bytes.empty()) held.push_back(entry.neighbour.what);
  }
  return held;
}

std::vector<const Snapshots::Part*> Snapshots::parts_of(const SnapshotId& snapshot) const {
  std::vector<const Part*> parts;
  for (const Entry& entry : complete_) {
    if (entry.id != snapshot) continue;
    parts.push_back(&entry.own);
    if (!entry.neighbour.bytes.empty()) parts.push_back(&entry.neighbour);
  }
  return parts;
}

void Snapshots::clear() {
  complete_.clear();
  free_.clear();
}

int64_t Snapshots::bytes() const {
  size_t bytes = 0;
  for (const Entry& entry : complete_) bytes += entry.own.bytes.size() + entry.neighbour.bytes.size();
  return static_cast<int64_t>(bytes);
}

// A buffer that a dropped snapshot has left has its pages already.
std::vector<std::byte> Snapshots::buffer(size_t bytes) {
  auto fits = std::find_if(free_.begin(), free_.end(), [&](const auto& one) { return one.size() == bytes; });
  if (fits == free_.end()) return std::vector<std::byte>(bytes);
  std::vector<std::byte> found = std::move(*fits);
  free_.erase(fits);
  return found;
}

void Snapshots::recycle(Entry entry) {
  for (Part* part : {&entry.own, &entry.neighbour})
    if (!part->bytes.empty() && free_.size() < 2) free_.push_back(std::move(part->bytes));
}

}  // namespace tessera::resilience
