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
      WriterSlot& parked = slot(cut->second);
      const bool goes_on = parked.sequence == sequence && parked.group == group;
      if (goes_on) ticket = {.slot = &parked, .skip = parked.state.load() / 2};
      if (!goes_on) parked.state.store(kIdle, std::memory_order_release);
      if (!goes_on) free_slots_.push_back(cut->second);
      cut_short_.erase(cut);
      if (goes_on) return ticket;
    }
  }
  while (free_slots_.empty()) {
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  }
  ticket.slot = &slot(free_slots_.back());
  free_slots_.pop_back();
  ticket.slot->sender = sender_id;
  ticket.slot->sequence = sequence;
  ticket.slot->group = group;
  ticket.slot->state.store(0, std::memory_order_release);
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
  done.state.store(kIdle, std::memory_order_release);
  free_slots_.push_back((reinterpret_cast<std::byte*>(&done) - region_.data() - kSlotsOffset) / slot_bytes_);
}

}  // namespace tessera::recsys
