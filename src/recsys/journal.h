// What makes a process death harmless to rows in shared memory. Before a row is updated its old bytes are
// copied here; a process that finds an update under way puts them back. Each put is known by its sender and
// sequence number: one that was finished is not applied again, and one that was cut short goes on behind its
// last whole row when the sender repeats it, however many deaths lie in between. (Killed processes lose no
// store that was executed, so the order of stores is enough; this does not hold for a host that loses power.)
//
//   0            Header
//   4096         kSenders x { u64 sender, u64 last sequence applied }; sender 0: free
//   then         kWriters slots of slot_bytes: WriterSlot, then the old bytes of one record
//
// Threads: any; a slot belongs to one thread at a time.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "recsys/region.h"

namespace tessera::recsys {

// One put under way.
struct WriterSlot {
  std::atomic<uint64_t>
      state;  // 2 x ids done + 1 while a row is being changed; kIdle when nothing is under way
  uint64_t sender, sequence;
  uint32_t group, shard, row, padding;
  // As many bytes as the longest record of the store, behind the slot.
  std::byte* old_record() { return reinterpret_cast<std::byte*>(this + 1); }
  const std::byte* old_record() const { return reinterpret_cast<const std::byte*>(this + 1); }
};

class Journal {
 public:
  static constexpr uint64_t kIdle = ~uint64_t{0};
  static constexpr int64_t kSenders = 4096, kWriters = 64;

  // Maps the file, or makes it when it is empty. `longest_record` in bytes must be that of the file.
  static Result<std::unique_ptr<Journal>> open(const std::string& path, int64_t longest_record);

  // The clock of policies, so that it goes on where it stood.
  std::atomic<uint64_t>& clock() const { return header().clock; }

  // Updates that were under way when the last process died: restore(slot) puts the old bytes back.
  template <class Restore>
  void recover(const Restore& restore);

  struct Ticket {
    WriterSlot* slot = nullptr;
    uint64_t skip = 0;      // ids that an earlier try has done
    bool repeated = false;  // was applied before: nothing to do, no slot
  };
  // Waits while all slots are taken. Sender 0 asks for no memory of its puts.
  Result<Ticket> begin(uint32_t group, uint64_t sender, uint64_t sequence);
  void finish(const Ticket& ticket);
  // The last sequence of a sender that was applied; 0: none.
  uint64_t applied(uint64_t sender);
  // The put failed when `done` of its ids were done; repeated, it goes on there.
  void abandon(const Ticket& ticket, uint64_t done);

 private:
  struct Header {
    static constexpr uint64_t kMagic = 0x31306c6e726a7354;  // "Tsjrnl01"
    uint64_t magic, slot_bytes;
    std::atomic<uint64_t> clock;
  };
  struct Sender {
    std::atomic<uint64_t> sender, applied;
  };
  // A put that was cut short. It holds its slot until its sender repeats it, so that one more death does not
  // forget how far it had come.
  struct CutShort {
    uint64_t sequence, done;
    uint32_t group;
    WriterSlot* slot;  // null: given to another put when none was free
  };

  Header& header() const { return *reinterpret_cast<Header*>(region_.data()); }
  Sender* senders() const { return reinterpret_cast<Sender*>(region_.data() + 4096); }
  WriterSlot& slot(int64_t number) const;
  Result<Sender*> sender(uint64_t id);
  void free(WriterSlot& slot);
  int64_t number_of(const WriterSlot& slot) const;
  void free_one_slot();

  Region region_;
  int64_t slot_bytes_ = 0;
  std::mutex mutex_;
  std::map<uint64_t, Sender*> known_;
  std::map<uint64_t, CutShort> cut_short_;  // by sender
  std::vector<int64_t> free_slots_;
};

// A slot whose put was cut short stays taken until its sender repeats the put: another death in between must
// not forget how far it had come.
template <class Restore>
void Journal::recover(const Restore& restore) {
  free_slots_.clear();
  for (int64_t number = kWriters - 1; number >= 0; --number) {
    WriterSlot& at = slot(number);
    uint64_t state = at.state.load(std::memory_order_acquire);
    if (state != kIdle && state % 2 == 1) restore(at);
    auto known = known_.find(at.sender);
    bool finished = known != known_.end() && known->second->applied.load() >= at.sequence;
    const bool cut_short = state != kIdle && at.sender != 0 && !finished;
    at.state.store(cut_short ? state - state % 2 : kIdle, std::memory_order_release);
    if (cut_short)
      cut_short_[at.sender] = {at.sequence, state / 2, at.group, &at};
    else
      free_slots_.push_back(number);
  }
}

}  // namespace tessera::recsys
