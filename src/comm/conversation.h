// One operation's exchange of messages, round by round: the vocabulary in which collectives are written.
//
//   talk.send(right, mine);  talk.receive(left, into);  TESSERA_RETURN_IF_ERROR(talk.finish());
#pragma once

#include "comm/exchanger.h"

namespace tessera::comm {

class Conversation {
 public:
  Conversation(Exchanger& exchanger, Operation operation, Deadline deadline)
      : exchanger_(exchanger), operation_(operation), deadline_(deadline) {}

  int64_t rank() const { return exchanger_.rank(); }
  int64_t size() const { return exchanger_.size(); }
  int64_t peer(int64_t distance) const { return ((rank() + distance) % size() + size()) % size(); }

  // At most one message per peer and direction in a round; buffers must stay until finish().
  void send(int64_t to, Bytes data);
  void receive(int64_t from, MutableBytes data);
  Status finish();
  Status finish_part();  // within the round: later messages still carry its number
  // Instead of finish(): what the transport does not take now is copied.
  Status finish_with_copies();
  uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  Header header() const;

  Exchanger& exchanger_;
  Operation operation_;
  Deadline deadline_;
  uint16_t step_ = 0;
  uint64_t bytes_sent_ = 0;
};

}  // namespace tessera::comm
