#include "comm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "core/file.h"

namespace tessera::comm {
namespace {

constexpr uint64_t kPage = 4096;
static_assert(sizeof(SegmentHeader) <= kPage && sizeof(RingHeader) <= kPage);

uint64_t whole_pages(int64_t bytes) {
  return (static_cast<uint64_t>(bytes) + kPage - 1) / kPage * kPage;
}
size_t segment_bytes(int64_t ranks, uint64_t ring_bytes) {
  return kPage + static_cast<uint64_t>(ranks) * (kPage + ring_bytes);
}

Error memory_error(const char* operation, int number) {
  ErrorCode code = number == ENOMEM || number == EMFILE || number == ENFILE ? ErrorCode::resource_exhausted
                                                                            : ErrorCode::internal;
  return make_error(code, "shared memory of a rank: {}: {}", operation, errno_text(number));
}

Result<std::byte*> map_bytes(int descriptor, size_t bytes) {
  int flags = descriptor < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED | MAP_NORESERVE;
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, descriptor, 0);
  if (base == MAP_FAILED) return memory_error("mmap", errno);
  return static_cast<std::byte*>(base);
}

// A peer must not be able to shrink what we have mapped.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Status check_memfd(int descriptor, size_t bytes) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return memory_error("fstat", errno);
  int seals = ::fcntl(descriptor, F_GET_SEALS);
  if (static_cast<size_t>(status.st_size) != bytes || seals < 0 || (seals & kSeals) != kSeals) {
    return make_error(ErrorCode::data_loss,
                      "memory passed by a peer has {} bytes and seals {:#x}, expected {} and {:#x}",
                      status.st_size, seals, bytes, kSeals);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<Segment>> Segment::map_new(int descriptor, int64_t ranks, int64_t ring_bytes) {
  uint64_t ring = whole_pages(ring_bytes);
  size_t bytes = segment_bytes(ranks, ring);
  TESSERA_ASSIGN_OR_RETURN(std::byte * base, map_bytes(descriptor, bytes));
  auto* header = new (base) SegmentHeader;
  header->ranks = static_cast<uint64_t>(ranks);
  header->ring_bytes = ring;
  std::shared_ptr<Segment> segment(new Segment(base, bytes, ring, descriptor));
  for (int64_t r = 0; r < ranks; ++r) new (&segment->ring_from(r).header()) RingHeader;
  return segment;
}

Result<std::shared_ptr<Segment>> Segment::make_private(int64_t ranks, int64_t ring_bytes) {
  return map_new(-1, ranks, ring_bytes);
}

Result<std::shared_ptr<Segment>> Segment::make_shared(int64_t ranks, int64_t ring_bytes) {
  int descriptor = ::memfd_create("tessera-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptor < 0) return memory_error("memfd_create", errno);
  size_t bytes = segment_bytes(ranks, whole_pages(ring_bytes));
  bool sized = ::ftruncate(descriptor, static_cast<off_t>(bytes)) == 0;
  if (!sized || ::fcntl(descriptor, F_ADD_SEALS, kSeals) != 0) {
    Error error = memory_error(sized ? "seal" : "ftruncate", errno);
    ::close(descriptor);
    return error;
  }
  auto segment = map_new(descriptor, ranks, ring_bytes);
  if (!segment) ::close(descriptor);
  return segment;
}

Result<std::shared_ptr<Segment>> Segment::map(int descriptor, int64_t ranks, int64_t ring_bytes) {
  uint64_t ring = whole_pages(ring_bytes);
  size_t bytes = segment_bytes(ranks, ring);
  Status fit = check_memfd(descriptor, bytes);
  Result<std::byte*> base = fit ? map_bytes(descriptor, bytes) : Result<std::byte*>(fit.error());
  ::close(descriptor);
  if (!base) return base.error();
  std::shared_ptr<Segment> segment(new Segment(*base, bytes, ring, -1));
  auto* header = reinterpret_cast<SegmentHeader*>(*base);
  if (header->magic != SegmentHeader::kMagic || header->ranks != static_cast<uint64_t>(ranks)) {
    return make_error(ErrorCode::data_loss, "memory passed by a peer has no valid header");
  }
  return segment;
}

Segment::~Segment() {
  ::munmap(base_, bytes_);
  close_descriptor();
}

void Segment::close_descriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

BellWords& Segment::bell() const {
  return reinterpret_cast<SegmentHeader*>(base_)->bell;
}

Ring Segment::ring_from(int64_t peer) const {
  std::byte* slot = base_ + kPage + static_cast<uint64_t>(peer) * (kPage + ring_bytes_);
  return Ring(reinterpret_cast<RingHeader*>(slot), slot + kPage, ring_bytes_);
}

}  // namespace tessera::comm
