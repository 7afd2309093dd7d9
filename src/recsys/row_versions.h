// Lets rows be read beside a writer without a lock: a writer counts a version up before and after it changes a
// record, and a reader that saw the same even version before and after its copy has a whole record. (The
// sequence lock of Linux; one version serves every sixteenth row of a shard.) Those of a shard fill one cache
// line, and those of all shards stay in the first cache of a reader.
//
// Threads: one writer at a time, who holds the shard; readers any. The thread sanitizer cannot see that a torn
// copy is thrown away, so under it readers are told to take the shard.
#pragma once

#include <atomic>
#include <cstdint>

namespace tessera::recsys {

class alignas(64) RowVersions {
 public:
#ifdef __SANITIZE_THREAD__
  static constexpr bool kReadersLock = true;
#else
  static constexpr bool kReadersLock = false;
#endif

  // Around a change of a row's bytes.
  class Writing {
   public:
    Writing(RowVersions& versions, uint32_t row) : version_(versions.of(row)) {
      version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_release);
    }
    ~Writing() { version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;

   private:
    std::atomic<uint32_t>& version_;
  };

  // Odd while somebody writes.
  uint32_t begin_read(uint32_t row) const {
    return of(row).load(std::memory_order_acquire);
  }
  bool unchanged(uint32_t row, uint32_t version) const {
    std::atomic_thread_fence(std::memory_order_acquire);
    return of(row).load(std::memory_order_relaxed) == version;
  }

 private:
  static constexpr uint32_t kVersions = 16;
  std::atomic<uint32_t>& of(uint32_t row) {
    return versions_[row % kVersions];
  }
  const std::atomic<uint32_t>& of(uint32_t row) const {
    return versions_[row % kVersions];
  }
  std::atomic<uint32_t> versions_[kVersions] = {};
};

}  // namespace tessera::recsys
