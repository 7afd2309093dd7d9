#include "recsys/journal.h"

#include <thread>

#include "recsys/shared_file.h"

namespace tessera::recsys {

namespace {

constexpr int64_t kSendersOffset = 4096;
constexpr int64_t kSlotsOffset = kSendersOffset + Journal::kSenders * 16;

}  // namespace

WriterSlot& Journal::slot(int64_t number) const {
  return *reinterpret_cast<WriterSlot*>(region_.data() + kSlotsOffset + number * slot_bytes_);
}

Result<std::unique_ptr<Journal>> Journal::open(const std::string& path, int64_t longest_record) {
  auto journal = std::make_unique<Journal>();
  journal->slot_bytes_ = (static_cast<int64_t>(sizeof(WriterSlot)) + longest_record + 63) / 64 * 64;
  int64_t bytes = kSlotsOffset + kWriters * journal->slot_bytes_;
  TESSERA_ASSIGN_OR_RETURN(SharedFile file, open_shared_file(path, bytes));
  journal->region_ = std::move(file.region);
  Header& header = journal->header();
  if (header.magic == 0) {
    header.slot_bytes = static_cast<uint64_t>(journal->slot_bytes_);
    for (int64_t number = 0; number < kWriters; ++number) journal->slot(number).state = kIdle;
    std::atomic_thread_fence(std::memory_order_release);
    header.magic = Header::kMagic;
  }
  if (header.magic != Header::kMagic || header.slot_bytes != static_cast<uint64_t>(journal->slot_bytes_))
    return make_error(
        ErrorCode::data_loss,
        "{} is no journal of this store: slots of {} bytes, expected {}; was it written by a store with "
        "other groups?",
        path, header.slot_bytes, journal->slot_bytes_);
  for (int64_t i = 0; i < kSenders; ++i)
    if (uint64_t id = journal->senders()[i].sender.load(); id != 0)
      journal->known_[id] = journal->senders() + i;
  for (int64_t number = kWriters - 1; number >= 0; --number) journal->free_slots_.push_back(number);
  return journal;
}

// REQUIRES: mutex_ is held.
Result<Journal::Sender*> Journal::sender(uint64_t id) {
  auto [place, is_new] = known_.try_emplace(id, nullptr);
  if (!is_new) return place->second;
  for (int64_t i = 0; i < kSenders; ++i) {
    if (senders()[i].sender.load() != 0) continue;
    senders()[i].applied.store(0);
    senders()[i].sender.store(id);
    return place->second = senders() + i;
  }
  known_.erase(place);
  return make_error(
      ErrorCode::resource_exhausted,
      "sender {} is one more than the {} that a store remembers; let senders keep their numbers when they "
      "restart",
      id, kSenders);
}

Result<Journal::Ticket> Journal::begin(uint32_t group, uint64_t sender_id, uint64_t sequence) {
  Ticket ticket;
  std::unique_lock lock(mutex_);
  if (sender_id != 0) {
    TESSERA_ASSIGN_OR_RETURN(Sender * from, sender(sender_id));
    ticket.repeated = sequence <= from->applied.load();
    if (ticket.repeated) return ticket;
    auto cut = cut_short_.find(sender_id);
    if (cut != cut_short_.end()) {
      const CutShort& parked = cut->second;
      if (parked.sequence == sequence && parked.group == group) ticket.skip = parked.done;
      ticket.slot = parked.slot;
      cut_short_.erase(cut);
    }
  }
  while (ticket.slot == nullptr) {
    if (free_slots_.empty()) free_one_slot();
    if (!free_slots_.empty()) {
      ticket.slot = &slot(free_slots_.back());
      free_slots_.pop_back();
      break;
    }
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  }
  ticket.slot->sender = sender_id;
  ticket.slot->sequence = sequence;
  ticket.slot->group = group;
  ticket.slot->state.store(2 * ticket.skip, std::memory_order_release);
  return ticket;
}

uint64_t Journal::applied(uint64_t sender_id) {
  std::lock_guard lock(mutex_);
  auto known = known_.find(sender_id);
  return known == known_.end() ? 0 : known->second->applied.load();
}

void Journal::finish(const Ticket& ticket) {
  WriterSlot& done = *ticket.slot;
  std::lock_guard lock(mutex_);
  if (done.sender != 0) known_.at(done.sender)->applied.store(done.sequence, std::memory_order_release);
  free(done);
}

void Journal::abandon(const Ticket& ticket, uint64_t done) {
  WriterSlot& slot = *ticket.slot;
  std::lock_guard lock(mutex_);
  if (slot.sender == 0) return free(slot);
  slot.state.store(2 * done, std::memory_order_release);
  cut_short_[slot.sender] = {slot.sequence, done, slot.group, &slot};
}

// Senders that never came back to a put that was cut short must not stop the others.
// REQUIRES: mutex_ is held.
void Journal::free_one_slot() {
  for (auto& [sender, cut] : cut_short_)
    if (cut.slot != nullptr) return free(*std::exchange(cut.slot, nullptr));
}

// REQUIRES: mutex_ is held.
void Journal::free(WriterSlot& slot) {
  slot.state.store(kIdle, std::memory_order_release);
  free_slots_.push_back(number_of(slot));
}

int64_t Journal::number_of(const WriterSlot& slot) const {
  return (reinterpret_cast<const std::byte*>(&slot) - region_.data() - kSlotsOffset) / slot_bytes_;
}

}  // namespace tessera::recsys
