#include "kernels/scratch.h"

#include <algorithm>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

namespace tessera::kernels {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr size_t kKeptBuffers = 16;
constexpr size_t kKeptBytes = size_t{64} << 20;  // larger ones are given back at once

struct FreeList {
  std::vector<std::pair<size_t, float*>> buffers;
  ~FreeList() {
    for (auto& [bytes, data] : buffers) ::operator delete(data, kAlignment);
  }
};
thread_local FreeList free_list;

}  // namespace

Scratch::Scratch(int64_t floats) {
  const size_t wanted = std::max<size_t>(static_cast<size_t>(floats) * sizeof(float), 4096);
  auto& buffers = free_list.buffers;
  auto best = buffers.end();
  for (auto it = buffers.begin(); it != buffers.end(); ++it)
    if (it->first >= wanted && (best == buffers.end() || it->first < best->first)) best = it;
  if (best != buffers.end()) {
    std::tie(bytes_, data_) = *best;
    buffers.erase(best);
    return;
  }
  bytes_ = wanted;
  data_ = static_cast<float*>(::operator new(bytes_, kAlignment));
}

Scratch::~Scratch() {
  if (data_ == nullptr) return;
  auto& buffers = free_list.buffers;
  if (bytes_ <= kKeptBytes) buffers.emplace_back(bytes_, data_);
  if (bytes_ > kKeptBytes) ::operator delete(data_, kAlignment);
  if (buffers.size() <= kKeptBuffers) return;
  auto smallest = std::min_element(buffers.begin(), buffers.end());
  ::operator delete(smallest->second, kAlignment);
  buffers.erase(smallest);
}

}  // namespace tessera::kernels
