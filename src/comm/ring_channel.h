// A channel over two rings: one in our segment for bytes that come in, one in the peer's for bytes that go out.
// Between processes the Unix socket that passed the memory stays open: its end of file tells that the peer's
// process is gone, and a byte on it wakes a peer that sleeps in poll.
#pragma once

#include <memory>

#include "comm/channel.h"
#include "comm/segment.h"

namespace tessera::comm {

class RingChannel : public Channel {
 public:
  // `label` names the peer in errors. Takes `socket`; -1 between threads.
  RingChannel(std::string label, std::shared_ptr<Segment> mine, int64_t my_rank,
              std::shared_ptr<Segment> theirs, int64_t peer, int socket);
  ~RingChannel() override;

  Result<size_t> write_some(Bytes first, Bytes second) override;
  Result<size_t> read_some(MutableBytes into) override;
  Status check(bool thorough) override;
  pollfd interest(bool reading, bool writing) override;
  void polled(short events) override;
  void leave(bool failed, const std::string& reason) override;

 private:
  Status peer_state() const;
  void drain_socket();

  std::string label_;
  std::shared_ptr<Segment> mine_, theirs_;
  Ring in_, out_;
  int socket_;
  bool process_gone_ = false;
};

}  // namespace tessera::comm
