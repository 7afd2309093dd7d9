#include "kernels/large_pages.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "kernels/threads.h"

namespace tessera::kernels {
namespace {

constexpr size_t kPage = size_t{2} << 20;

}  // namespace

at::Tensor large_bytes(int64_t bytes) {
  const size_t wanted = (static_cast<size_t>(std::max<int64_t>(bytes, 1)) + kPage - 1) / kPage * kPage;
  const size_t mapped = wanted + kPage;  // the kernel aligns to small pages
  void* memory =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TORCH_CHECK(memory != MAP_FAILED, "no memory for ", bytes, " bytes: ", std::strerror(errno));
  auto* first = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage);
  madvise(first, wanted, MADV_HUGEPAGE);  // a wish: small pages do as well
  parallel_ranges(static_cast<int64_t>(wanted / kPage), 16, [&](int64_t begin, int64_t end) {
    for (char* page = first + static_cast<size_t>(begin) * kPage; begin < end; ++begin, page += kPage)
      for (size_t at = 0; at < kPage; at += 4096) page[at] = 0;
  });
  return at::from_blob(
      first, {bytes}, [memory, mapped](void*) { munmap(memory, mapped); },
      at::TensorOptions().dtype(at::kByte));
}

}  // namespace tessera::kernels
