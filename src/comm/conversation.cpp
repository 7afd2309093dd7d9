#include "comm/conversation.h"

namespace tessera::comm {

Header Conversation::header() const {
  Kind kind = operation_.kind == Kind::recv ? Kind::send : operation_.kind;
  return {.kind = kind, .step = step_, .sequence = operation_.sequence, .total_bytes = operation_.bytes};
}

void Conversation::send(int64_t to, Bytes data) {
  bytes_sent_ += data.size();
  exchanger_.send(to, header(), data);
}

void Conversation::receive(int64_t from, MutableBytes data) {
  exchanger_.receive(from, header(), data);
}

Status Conversation::finish() {
  ++step_;
  return finish_part();
}

Status Conversation::finish_part() {
  return exchanger_.run(deadline_);
}

Status Conversation::finish_with_copies() {
  ++step_;
  return exchanger_.keep_copies();
}

}  // namespace tessera::comm
