// A channel over one TCP connection. A peer that leaves in order says goodbye, in order behind its data; an end
// of file without it means that the peer gave up or that its process ended.
#pragma once

#include "comm/channel.h"
#include "comm/socket.h"

namespace tessera::comm {

class TcpChannel : public Channel {
 public:
  TcpChannel(std::string label, Descriptor socket) : label_(std::move(label)), socket_(std::move(socket)) {}

  Result<size_t> write_some(Bytes first, Bytes second) override;
  Result<size_t> read_some(MutableBytes into) override;
  Status check(bool thorough) override;
  pollfd interest(bool reading, bool writing) override;
  void polled(short events) override;
  void leave(bool failed, const std::string& reason) override;

 private:
  Error gone() const;

  std::string label_;
  Descriptor socket_;
  bool hung_up_ = false;  // the peer will send no more; what it sent may still be unread
};

}  // namespace tessera::comm
