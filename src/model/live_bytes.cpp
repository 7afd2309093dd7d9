#include "model/live_bytes.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>

namespace tessera::model {
namespace {

std::atomic<int64_t> live{0}, peak{0};

void count(int64_t bytes) {
  int64_t now = live.fetch_add(bytes) + bytes, highest = peak.load();
  while (now > highest && !peak.compare_exchange_weak(highest, now)) {
  }
}

// One allocation of the allocator behind, and its size.
struct Counted {
  c10::DataPtr memory;
  int64_t bytes;
};

void release(void* context) {
  auto* counted = static_cast<Counted*>(context);
  count(-counted->bytes);
  delete counted;
}

class CountingAllocator final : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* behind) : behind_(behind) {}

  c10::DataPtr allocate(size_t bytes) override {
    auto* counted = new Counted{behind_->allocate(bytes), static_cast<int64_t>(bytes)};
    count(counted->bytes);
    return {counted->memory.get(), counted, &release, counted->memory.device()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }  // the context is not the data
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  c10::Allocator* behind_;
};

}  // namespace

void install_counting_allocator() {
  static CountingAllocator allocator(c10::GetCPUAllocator());
  c10::SetCPUAllocator(&allocator, 1);
}

int64_t live_bytes() {
  return live;
}
int64_t peak_live_bytes() {
  return peak;
}
void reset_peak_live_bytes() {
  peak = live.load();
}

}  // namespace tessera::model
