// Moves the messages of one rank over the channels to all its peers at once. Sends are queued per peer and
// leave in order; receives are matched against the header that the operation expects. Whoever runs an operation
// also moves what earlier sends have left behind, so that no rank waits for room while its peer waits for
// bytes.
//
// Threads: one at a time, except fail() and failure(), which may come from any thread at any time.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "comm/bell.h"
#include "comm/channel.h"
#include "comm/flight_recorder.h"
#include "comm/message.h"

namespace tessera::comm {

// Everything that a group needs from its transport.
struct Links {
  int64_t rank = 0;
  std::vector<std::string> labels;                 // of all ranks, for errors: "rank 3"
  std::vector<std::unique_ptr<Channel>> channels;  // by peer; null at our own rank
  std::shared_ptr<BellWords> bell;                 // ours, with the memory that holds it
  int nudge = -1;                                  // eventfd for our own bell; owned; -1 when never polled
  bool polls = false;                              // some channels are sockets: sleep in poll
};

class Exchanger {
 public:
  Exchanger(Links links, FlightRecorder& recorder);
  ~Exchanger();

  int64_t rank() const { return links_.rank; }
  int64_t size() const { return static_cast<int64_t>(links_.labels.size()); }
  const std::string& label(int64_t peer) const { return links_.labels[static_cast<size_t>(peer)]; }

  // Queue a message; the bytes stay the caller's until run() or keep_copies().
  void send(int64_t peer, const Header& header, Bytes body);
  void receive(int64_t peer, const Header& expected, MutableBytes into);

  // Until every queued receive is there and no send borrows the caller's bytes any more.
  Status run(Deadline deadline);
  // Moves what fits now and copies the rest of borrowed bytes, so that the caller may go on.
  Status keep_copies();
  // Moves left-over sends until none is left, `stop` is set or the deadline passes.
  Status flush(Deadline deadline, const std::atomic<bool>& stop);
  bool has_left_over() const { return left_over_.load(std::memory_order_acquire); }

  // The first failure stays; peers learn of it and every wait ends.
  void fail(Error error);
  std::optional<Error> failure() const;
  void wake() { ring_bell(*links_.bell, links_.nudge); }
  // Tells peers that nothing more will come, in order behind what was sent.
  void leave_in_order();

 private:
  struct Outgoing {
    Header header;
    Bytes body;
    std::vector<std::byte> copy;  // holds the rest of `body` once it is no longer borrowed
    bool borrowed = true;
    size_t done = 0;  // of header and body together
  };
  struct Incoming {
    Header expected, came;
    MutableBytes into;
    size_t done = 0;
    bool waiting = false;
  };

  Status move_all(bool& moved);
  Status move_out(size_t peer, bool& moved);
  Status move_in(size_t peer, bool& moved);
  Status check_peers(bool thorough);
  void sleep(uint32_t seen, double seconds);
  std::vector<pollfd> interests() const;
  int64_t awaited_peer() const;
  Error too_late() const;
  template <class Done>
  Status move_until(Done done, Deadline deadline);
  void drop_borrowed();

  Links links_;
  FlightRecorder& recorder_;
  std::vector<std::deque<Outgoing>> out_;  // by peer
  std::vector<Incoming> in_;
  int64_t receives_ = 0, borrowed_ = 0, queued_ = 0;
  std::atomic<bool> left_over_{false};

  mutable std::mutex failure_mutex_;
  std::optional<Error> failure_;
  std::atomic<bool> failed_{false};
  bool left_ = false;
};

}  // namespace tessera::comm
