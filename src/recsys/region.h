// A stretch of virtual memory whose pages cost nothing until they are touched: rows and indexes grow in place,
// and what is given back returns to the system at once. Private memory asks for huge pages, because a random
// row otherwise costs a walk of the page tables as well.
//
// Threads: the object is not changed by use; bytes are the caller's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/result.h"

namespace tessera::recsys {

constexpr int64_t rounded_up(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

class Region {
 public:
  static constexpr int64_t kHugePage = 2 << 20;

  static Result<Region> reserve(int64_t bytes);  // rounded up to huge pages, filled with zeros
  // Maps a file of that many bytes (a memfd, or a file of a file system) so that its bytes outlive the process.
  // Takes the descriptor.
  static Result<Region> map(int descriptor, int64_t bytes);
  Region() = default;
  Region(Region&& other) noexcept { *this = std::move(other); }
  Region& operator=(Region&& other) noexcept;
  ~Region();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  int descriptor() const { return descriptor_; }  // -1 for private memory
  // For bytes that are touched here and there: ask for small pages.
  void prefer_small_pages(int64_t offset, int64_t bytes) const;
  // Whole pages inside [offset, offset + bytes) go back to the system and read as zeros.
  void release(int64_t offset, int64_t bytes) const;

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0, mapped_bytes_ = 0;
  std::byte* mapped_ = nullptr;
  int descriptor_ = -1;
};

}  // namespace tessera::recsys
