#include "comm/ring_channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tessera::comm {

RingChannel::RingChannel(std::string label, std::shared_ptr<Segment> mine, int64_t my_rank,
                         std::shared_ptr<Segment> theirs, int64_t peer, int socket)
    : label_(std::move(label)),
      mine_(std::move(mine)),
      theirs_(std::move(theirs)),
      in_(mine_->ring_from(peer)),
      out_(theirs_->ring_from(my_rank)),
      socket_(socket) {}

RingChannel::~RingChannel() {
  if (socket_ >= 0) ::close(socket_);
}

// The peer as its side of the incoming ring tells it.
Status RingChannel::peer_state() const {
  RingHeader& in = in_.header();
  if (in.writer.load(std::memory_order_acquire) != kFailed) return {};
  std::string reason(in.writer_reason, ::strnlen(in.writer_reason, RingHeader::kReasonBytes));
  return make_error(ErrorCode::unavailable, "{} gave up: {}", label_, reason);
}

Result<size_t> RingChannel::write_some(Bytes first, Bytes second) {
  if (out_.header().reader.load(std::memory_order_acquire) != kOpen) {
    TESSERA_RETURN_IF_ERROR(peer_state());
    return make_error(ErrorCode::unavailable, "{} has left the group and reads no more", label_);
  }
  size_t written = out_.write(first, second);
  if (written > 0 && out_.take_reader_request()) ring_bell(theirs_->bell(), socket_);
  return written;
}

Result<size_t> RingChannel::read_some(MutableBytes into) {
  uint32_t writer =
      in_.header().writer.load(std::memory_order_acquire);  // before the ring: what it left is there
  size_t count = in_.read(into);
  if (count > 0) {
    if (in_.take_writer_request()) ring_bell(theirs_->bell(), socket_);
    return count;
  }
  if (writer == kOpen) return size_t{0};
  TESSERA_RETURN_IF_ERROR(peer_state());
  return make_error(ErrorCode::unavailable, "{} has left the group and sent nothing more", label_);
}

Status RingChannel::check(bool thorough) {
  TESSERA_RETURN_IF_ERROR(peer_state());
  if (thorough && socket_ >= 0) drain_socket();
  bool left_in_order = in_.header().writer.load(std::memory_order_acquire) == kFinished;
  if (!process_gone_ || left_in_order) return {};
  TESSERA_RETURN_IF_ERROR(peer_state());  // it may have given up and ended between the two looks
  return make_error(ErrorCode::unavailable, "{} is gone: its process ended", label_);
}

void RingChannel::drain_socket() {
  char bytes[256];
  while (!process_gone_) {
    ssize_t count = ::recv(socket_, bytes, sizeof bytes, MSG_DONTWAIT);
    if (count > 0 || (count < 0 && errno == EINTR)) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    process_gone_ = true;
  }
}

pollfd RingChannel::interest(bool, bool) {
  return {process_gone_ ? -1 : socket_, POLLIN, 0};
}

void RingChannel::polled(short events) {
  if (events != 0) drain_socket();
}

void RingChannel::leave(bool failed, const std::string& reason) {
  RingHeader& out = out_.header();
  if (failed) {
    size_t bytes = std::min(reason.size(), RingHeader::kReasonBytes - 1);
    std::memcpy(out.writer_reason, reason.data(), bytes);
  }
  out.writer.store(failed ? kFailed : kFinished, std::memory_order_release);
  in_.header().reader.store(failed ? kFailed : kFinished, std::memory_order_release);
  ring_bell(theirs_->bell(), socket_);
}

}  // namespace tessera::comm
