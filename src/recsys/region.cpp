#include "recsys/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "core/file.h"

namespace tessera::recsys {
namespace {

constexpr int64_t kPage = 4096;

}  // namespace

Result<Region> Region::reserve(int64_t bytes) {
  Region region;
  region.bytes_ = rounded_up(bytes, kHugePage);
  region.mapped_bytes_ = region.bytes_ + kHugePage;
  void* memory = ::mmap(nullptr, static_cast<size_t>(region.mapped_bytes_), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return make_error(
        ErrorCode::resource_exhausted,
        "cannot reserve {} bytes of address space: {}; look at ulimit -v and vm.overcommit_memory", bytes,
        errno_text(errno));
  region.mapped_ = static_cast<std::byte*>(memory);
  auto address = reinterpret_cast<uintptr_t>(memory);
  region.data_ = region.mapped_ + (kHugePage - static_cast<int64_t>(address % kHugePage)) % kHugePage;
  ::madvise(region.data_, static_cast<size_t>(region.bytes_),
            MADV_HUGEPAGE);  // a wish: refusal costs speed only
  return region;
}

Result<Region> Region::map(int descriptor, int64_t bytes) {
  Region region;
  region.descriptor_ = descriptor;
  void* memory = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        descriptor, 0);
  if (memory == MAP_FAILED)
    return make_error(ErrorCode::resource_exhausted, "cannot map {} bytes of shared rows: {}", bytes,
                      errno_text(errno));
  region.mapped_ = region.data_ = static_cast<std::byte*>(memory);
  region.mapped_bytes_ = region.bytes_ = bytes;
  ::madvise(region.data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return region;
}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_, other.mapped_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Region::~Region() {
  if (mapped_ != nullptr) ::munmap(mapped_, static_cast<size_t>(mapped_bytes_));
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Region::prefer_small_pages(int64_t offset, int64_t bytes) const {
  ::madvise(data_ + offset, static_cast<size_t>(bytes), MADV_NOHUGEPAGE);
}

void Region::release(int64_t offset, int64_t bytes) const {
  int64_t begin = rounded_up(offset, kPage), end = (offset + bytes) / kPage * kPage;
  if (begin >= end) return;
  if (descriptor_ >= 0) {
    ::fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, end - begin);
    return;
  }
  ::madvise(data_ + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace tessera::recsys
