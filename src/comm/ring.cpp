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

uint64_t Ring::room(std::memory_order order) const {
  return capacity_ - (header_->tail.load(order) - header_->head.load(order));
}

// Requests and positions are sequentially consistent: either we see what the other side moved after our
// request, or it sees the request.
size_t Ring::write(Bytes first, Bytes second) {
  uint64_t tail = header_->tail.load(std::memory_order_relaxed);
  uint64_t free = room(std::memory_order_acquire);
  if (free == 0) {
    header_->writer_asks.store(1, std::memory_order_seq_cst);
    free = room(std::memory_order_seq_cst);
  }
  size_t limit = std::min<size_t>(free, kPieceBytes);
  first = first.first(std::min(first.size(), limit));
  second = second.first(std::min(second.size(), limit - first.size()));
  copy_in(tail, first);
  copy_in(tail + first.size(), second);
  size_t written = first.size() + second.size();
  if (written > 0) header_->tail.store(tail + written, std::memory_order_seq_cst);
  return written;
}

size_t Ring::read(MutableBytes into) {
  uint64_t head = header_->head.load(std::memory_order_relaxed);
  uint64_t available = header_->tail.load(std::memory_order_acquire) - head;
  if (available == 0) {
    header_->reader_asks.store(1, std::memory_order_seq_cst);
    available = header_->tail.load(std::memory_order_seq_cst) - head;
  }
  size_t count = std::min<size_t>({into.size(), available, kPieceBytes});
  if (count == 0) return 0;
  uint64_t start = head % capacity_;
  size_t before_wrap = std::min<size_t>(count, capacity_ - start);
  std::memcpy(into.data(), data_ + start, before_wrap);
  if (before_wrap < count) std::memcpy(into.data() + before_wrap, data_, count - before_wrap);
  header_->head.store(head + count, std::memory_order_seq_cst);
  return count;
}

bool Ring::take_reader_request() {
  if (header_->reader_asks.load(std::memory_order_seq_cst) == 0) return false;
  return header_->reader_asks.exchange(0, std::memory_order_seq_cst) != 0;
}

// A little room is not worth a wake-up: a reader that wants more empties the ring further.
bool Ring::take_writer_request() {
  if (header_->writer_asks.load(std::memory_order_seq_cst) == 0) return false;
  if (room(std::memory_order_relaxed) < capacity_ / 4) return false;
  return header_->writer_asks.exchange(0, std::memory_order_seq_cst) != 0;
}

}  // namespace tessera::comm
