#include "comm/tcp_channel.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>

#include "comm/message.h"
#include "core/file.h"

namespace tessera::comm {
namespace {

constexpr double kGoodbye_s = 1;  // a peer whose buffers stay full that long does without

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}
iovec piece_of(Bytes bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace

Error TcpChannel::gone() const {
  return make_error(ErrorCode::unavailable, "{} is gone: its process ended or it gave up", label_);
}

Result<size_t> TcpChannel::write_some(Bytes first, Bytes second) {
  iovec pieces[2] = {piece_of(first), piece_of(second)};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  ssize_t count = ::sendmsg(socket_.number(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count >= 0) return static_cast<size_t>(count);
  if (would_block()) return size_t{0};
  return gone();
}

Result<size_t> TcpChannel::read_some(MutableBytes into) {
  ssize_t count = ::recv(socket_.number(), into.data(), into.size(), MSG_DONTWAIT);
  if (count > 0) return static_cast<size_t>(count);
  if (count < 0 && would_block()) return size_t{0};
  return gone();
}

Status TcpChannel::check(bool thorough) {
  if (!thorough && !hung_up_) return {};
  char byte = 0;
  ssize_t count = ::recv(socket_.number(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (count > 0 || (count < 0 && would_block())) return {};
  return gone();
}

pollfd TcpChannel::interest(bool reading, bool writing) {
  if (hung_up_ && !reading && !writing) return {-1, 0, 0};
  int events = (reading ? POLLIN : 0) | (writing ? POLLOUT : 0) | (hung_up_ ? 0 : POLLRDHUP);
  return {socket_.number(), static_cast<short>(events), 0};
}

void TcpChannel::polled(short events) {
  if ((events & (POLLRDHUP | POLLHUP | POLLERR)) != 0) hung_up_ = true;
}

void TcpChannel::leave(bool failed, const std::string&) {
  if (failed) {
    ::shutdown(socket_.number(), SHUT_RDWR);
    return;
  }
  Header goodbye{.kind = Kind::goodbye};
  send_all(socket_, std::as_bytes(std::span(&goodbye, 1)), Deadline::after(kGoodbye_s)).ok();
  ::shutdown(socket_.number(), SHUT_WR);
}

}  // namespace tessera::comm
