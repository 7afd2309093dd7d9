#include "recsys/index.h"

#include <algorithm>
#include <cmath>

namespace tessera::recsys {

Result<std::unique_ptr<BucketSpace>> BucketSpace::create(int64_t bytes) {
  TESSERA_ASSIGN_OR_RETURN(auto region, Region::reserve(bytes));
  auto space = std::make_unique<BucketSpace>();
  space->region_ = std::move(region);
  return space;
}

Bucket* BucketSpace::allocate(uint64_t buckets) {
  int64_t bytes = static_cast<int64_t>(buckets * sizeof(Bucket));
  std::lock_guard lock(mutex_);
  if (used_ + bytes > region_.bytes()) return nullptr;
  std::byte* memory = region_.data() + used_;
  used_ += bytes;
  return reinterpret_cast<Bucket*>(memory);
}

// Addresses are not used again: shards grow through the same sizes one after the other, and address space is
// cheap.
void BucketSpace::release(Bucket* buckets, uint64_t count) {
  int64_t offset = reinterpret_cast<std::byte*>(buckets) - region_.data();
  region_.release(offset, static_cast<int64_t>(count * sizeof(Bucket)));
}

void Index::insert(uint64_t hash, uint16_t tag, uint32_t row) {
  Bucket* buckets = this->buckets();
  for (uint64_t number = below(hash, view().count);; number = next(number)) {
    if (uint32_t free = buckets[number].matches(0); free != 0) {
      buckets[number].set(__builtin_ctz(free), tag, row);
      ++entries_;
      return;
    }
    ++buckets[number].passed;
  }
}

void Index::remove(uint64_t hash, uint16_t tag, uint32_t row) {
  Bucket* buckets = this->buckets();
  for (uint64_t number = below(hash, view().count);; number = next(number)) {
    for (uint32_t found = buckets[number].matches(tag); found != 0; found &= found - 1) {
      int entry = __builtin_ctz(found);
      if (buckets[number].row(entry) != row) continue;
      buckets[number].tags[entry] = 0;
      --entries_;
      return;
    }
    TESSERA_REQUIRE(buckets[number].passed > 0, "row {} is not in the index", row);
    --buckets[number].passed;
  }
}

uint64_t Index::buckets_for(uint64_t entries) {
  return static_cast<uint64_t>(std::ceil(static_cast<double>(entries + 1) / (kMaxLoad * Bucket::kEntries)));
}

uint64_t Index::larger() const {
  uint64_t count = view().count;
  return count + std::max<uint64_t>(1, count / 5);
}

Status Index::restart(uint64_t count) {
  Bucket* fresh = count <= kCountMask ? space_->allocate(count) : nullptr;
  if (fresh == nullptr)
    return make_error(ErrorCode::resource_exhausted,
                      "no address space for an index of {} buckets; use more shards, or an eviction policy",
                      count);
  Bucket* old = buckets();
  uint64_t old_count = view().count;
  view_->store(static_cast<uint64_t>(fresh - base_) << kCountBits | count, std::memory_order_release);
  entries_ = 0;
  if (old_count != 0) space_->release(old, old_count);
  return {};
}

}  // namespace tessera::recsys
