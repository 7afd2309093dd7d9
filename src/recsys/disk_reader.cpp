// The two ways to have many reads on their way at once.
#include <liburing.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <thread>

#include "core/file.h"
#include "recsys/disk_file.h"

namespace tessera::recsys {
namespace {

class UringReader : public BatchReader {
 public:
  static constexpr unsigned kDepth = 256;

  UringReader(int descriptor, std::string name) : descriptor_(descriptor), name_(std::move(name)) {}
  ~UringReader() override {
    if (open_) ::io_uring_queue_exit(&ring_);
  }
  bool open() { return open_ = ::io_uring_queue_init(kDepth, &ring_, 0) == 0; }

  Status read(std::span<const DiskRead> reads, size_t bytes) override {
    Status status;
    size_t sent = 0, done = 0;
    while (done < reads.size()) {
      // After an error only what is on its way is waited for: it writes into the caller's memory.
      if (!status.ok()) {
        if (done == sent) break;
      } else {
        for (; sent < reads.size() && sent - done < kDepth; ++sent) send(reads[sent], bytes);
      }
      int code = ::io_uring_submit_and_wait(&ring_, 1);
      TESSERA_REQUIRE(code >= 0 || code == -EINTR || code == -EAGAIN || code == -EBUSY, "io_uring: {}",
                      errno_text(-code));
      io_uring_cqe* arrived = nullptr;
      for (; ::io_uring_peek_cqe(&ring_, &arrived) == 0; ++done) {
        auto* which = static_cast<const DiskRead*>(::io_uring_cqe_get_data(arrived));
        int count = arrived->res;
        ::io_uring_cqe_seen(&ring_, arrived);
        if (status.ok()) status = finish(*which, bytes, count);
      }
    }
    return status;
  }

 private:
  void send(const DiskRead& read, size_t bytes) {
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    ::io_uring_prep_read(entry, descriptor_, read.into, static_cast<unsigned>(bytes),
                         static_cast<uint64_t>(read.offset));
    ::io_uring_sqe_set_data(entry, const_cast<DiskRead*>(&read));
  }
  // A read that came back short or was refused for the moment is done again, which also words the error.
  Status finish(const DiskRead& read, size_t bytes, int count) const {
    if (count == static_cast<int>(bytes)) return {};
    bool again = count >= 0 || count == -EINTR || count == -EAGAIN;
    if (!again) return system_error("read", name_, -count);
    return read_fully(descriptor_, name_, read.offset, {read.into, bytes});
  }

  int descriptor_;
  std::string name_;
  io_uring ring_{};
  bool open_ = false;
};

class ThreadReader : public BatchReader {
 public:
  static constexpr size_t kThreads = 16;

  ThreadReader(int descriptor, std::string name) : descriptor_(descriptor), name_(std::move(name)) {
    for (size_t t = 0; t < kThreads; ++t) crew_.emplace_back([this] { work(); });
  }
  ~ThreadReader() override {
    {
      std::lock_guard lock(mutex_);
      leave_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : crew_) thread.join();
  }

  Status read(std::span<const DiskRead> reads, size_t bytes) override {
    std::unique_lock lock(mutex_);
    reads_ = reads;
    bytes_ = bytes;
    next_ = 0;
    status_ = {};
    for (size_t t = 1; t < std::min(reads.size(), kThreads); ++t) wake_.notify_one();
    while (next_ < reads_.size()) read_next(lock);
    finished_.wait(lock, [&] { return next_ >= reads_.size() && busy_ == 0; });
    reads_ = {};
    return std::move(status_);
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return leave_ || next_ < reads_.size(); });
      if (leave_) return;
      read_next(lock);
      if (next_ >= reads_.size() && busy_ == 0) finished_.notify_one();
    }
  }
  void read_next(std::unique_lock<std::mutex>& lock) {
    DiskRead mine = reads_[next_++];
    ++busy_;
    lock.unlock();
    Status status = read_fully(descriptor_, name_, mine.offset, {mine.into, bytes_});
    lock.lock();
    --busy_;
    if (status.ok()) return;
    status_ = std::move(status);
    next_ = reads_.size();
  }

  int descriptor_;
  std::string name_;
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::span<const DiskRead> reads_;
  size_t bytes_ = 0, next_ = 0, busy_ = 0;
  Status status_;
  bool leave_ = false;
  std::vector<std::thread> crew_;
};

}  // namespace

std::unique_ptr<BatchReader> make_uring_reader(int descriptor, std::string name) {
  auto reader = std::make_unique<UringReader>(descriptor, std::move(name));
  if (!reader->open()) return nullptr;
  return reader;
}

std::unique_ptr<BatchReader> make_thread_reader(int descriptor, std::string name) {
  return std::make_unique<ThreadReader>(descriptor, std::move(name));
}

}  // namespace tessera::recsys
