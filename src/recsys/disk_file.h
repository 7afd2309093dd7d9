// The file where rows lie that left memory. Rows come back in batches: all reads of a batch are on their way at
// once, through io_uring, or where that is refused (old kernels, seccomp, sysctl) by a crew of threads.
//
// Errors name the file, and the place in it. Threads: any, for every member.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "recsys/options.h"

namespace tessera::recsys {

inline constexpr int64_t kDiskPage = 4096;  // direct reads and writes are whole pages of it

// Memory that may be read into and written from past the page cache. Grows, and forgets what it held.
class PageBuffer {
 public:
  std::byte* at_least(size_t bytes);

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t bytes_ = 0;
};

struct DiskRead {
  int64_t offset;
  std::byte* into;
};

// Reads many pieces of one size at once. Threads: one at a time.
class BatchReader {
 public:
  virtual ~BatchReader() = default;
  // `bytes` from each offset. The first error ends the batch.
  virtual Status read(std::span<const DiskRead> reads, size_t bytes) = 0;
};

class DiskFile {
 public:
  // `path` empty: a file without a name in the folder, gone with the process.
  static Result<std::unique_ptr<DiskFile>> open(const DiskOptions& options, const std::string& path);
  ~DiskFile();

  // Takes room on the disk, so that a later write there finds it.
  Status allocate(int64_t offset, int64_t bytes);
  // With direct access: whole pages, from and into page-aligned memory.
  Status write(int64_t offset, std::span<const std::byte> bytes);
  Status read(int64_t offset, std::span<std::byte> bytes) const;
  Status read_batch(std::span<const DiskRead> reads, size_t bytes);

  bool direct() const { return direct_; }
  int64_t bytes() const { return bytes_; }  // when it was opened
  const std::string& name() const { return name_; }

 private:
  std::unique_ptr<BatchReader> take_reader();

  int descriptor_ = -1;
  bool direct_ = false, io_uring_ = true;
  int64_t bytes_ = 0;
  std::string name_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<BatchReader>> idle_;  // one per call under way at most
};

// Null where the kernel refuses.
std::unique_ptr<BatchReader> make_uring_reader(int descriptor, std::string name);
std::unique_ptr<BatchReader> make_thread_reader(int descriptor, std::string name);
// All of `into` from `offset`, also when the system reads in parts.
Status read_fully(int descriptor, const std::string& name, int64_t offset, std::span<std::byte> into);

}  // namespace tessera::recsys
