#include "comm/ring.h"

#include <algorithm>
#include <cstring>

namespace tessera::comm {
namespace {

// Published at once at most, so that the reader copies one piece while the writer fills the next.
constexpr size_t kPieceBytes = 256 << 10;

}  // namespace

void Ring::copy_in(uint64_t position, Bytes bytes) {
  if (bytes.empty()) return;
  uint64_t start = position % capacity_;
  size_t before_wrap = std::min<size_t>(bytes.size(), capacity_ - start);
  std::memcpy(data_ + start, bytes.data(), before_wrap);
  if (before_wrap < bytes.size()) std::memcpy(data_, bytes.data() + before_wrap, bytes.size() - before_wrap);
}

size_t Ring::write(Bytes first, Bytes second) {
  uint64_t tail = header_->tail.load(std::memory_order_relaxed);
  size_t room =
      std::min<size_t>(capacity_ - (tail - header_->head.load(std::memory_order_acquire)), kPieceBytes);
  first = first.first(std::min(first.size(), room));
  second = second.first(std::min(second.size(), room - first.size()));
  copy_in(tail, first);
  copy_in(tail + first.size(), second);
  size_t written = first.size() + second.size();
  if (written > 0) header_->tail.store(tail + written, std::memory_order_release);
  return written;
}

size_t Ring::read(MutableBytes into) {
  uint64_t head = header_->head.load(std::memory_order_relaxed);
  uint64_t available = header_->tail.load(std::memory_order_acquire) - head;
  size_t count = std::min<size_t>({into.size(), available, kPieceBytes});
  if (count == 0) return 0;
  uint64_t start = head % capacity_;
  size_t before_wrap = std::min<size_t>(count, capacity_ - start);
  std::memcpy(into.data(), data_ + start, before_wrap);
  if (before_wrap < count) std::memcpy(into.data() + before_wrap, data_, count - before_wrap);
  header_->head.store(head + count, std::memory_order_release);
  return count;
}

}  // namespace tessera::comm
