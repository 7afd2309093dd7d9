#include "recsys_train/cached_servers.h"

#include <algorithm>

namespace tessera::recsys_train {

CachedServers::CachedServers(EmbeddingServers& servers, Options options)
    : ForwardingServers(servers), options_(std::move(options)) {
  for (size_t g = 0; g < options_.dims.size(); ++g) caches_.push_back(std::make_unique<Cache>());
}

Status CachedServers::get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                          const GetOptions& options, int64_t* applied) {
  if (options.access != recsys::Access::train || options_.rows < 1)
    return servers_.get(group, ids, rows, options, applied);
  Cache& cache = *caches_[static_cast<size_t>(group)];
  const auto dim = static_cast<size_t>(options_.dims[static_cast<size_t>(group)]);
  std::vector<uint64_t> missing;
  std::vector<int64_t> positions;
  look(cache, dim, ids, options.needs_step, rows, missing, positions);
  gets_ += static_cast<int64_t>(ids.size());
  hits_ += static_cast<int64_t>(ids.size() - missing.size());
  std::vector<float> fetched(missing.size() * dim);
  int64_t fresh = options.needs_step;
  if (!missing.empty()) TESSERA_RETURN_IF_ERROR(servers_.get(group, missing, fetched, options, &fresh));
  scatter(fetched, positions, static_cast<int64_t>(dim), rows);
  keep(cache, dim, missing, fetched, fresh);
  if (applied != nullptr) *applied = options.needs_step;  // of rows that were here, no more is known
  return {};
}

void CachedServers::look(Cache& cache, size_t dim, std::span<const uint64_t> ids, int64_t needs_step,
                         std::span<float> rows, std::vector<uint64_t>& missing,
                         std::vector<int64_t>& positions) {
  std::lock_guard lock(cache.mutex);
  for (size_t i = 0; i < ids.size(); ++i) {
    auto found = cache.place_of.find(ids[i]);
    if (found != cache.place_of.end() && cache.applied[found->second] >= needs_step) {
      std::copy_n(cache.rows.data() + found->second * dim, dim, rows.data() + i * dim);
      continue;
    }
    missing.push_back(ids[i]);
    positions.push_back(static_cast<int64_t>(i));
  }
}

void CachedServers::keep(Cache& cache, size_t dim, std::span<const uint64_t> ids, std::span<const float> rows,
                         int64_t applied) {
  std::lock_guard lock(cache.mutex);
  for (size_t i = 0; i < ids.size(); ++i) {
    auto [entry, added] = cache.place_of.try_emplace(ids[i], static_cast<uint32_t>(cache.next));
    size_t place = entry->second;
    if (!added && cache.applied[place] > applied) continue;  // somebody was faster with a newer row
    if (added && cache.ids.size() < static_cast<size_t>(options_.rows)) {
      cache.ids.push_back(0);
      cache.applied.push_back(0);
      cache.rows.resize(cache.rows.size() + dim);
    } else if (added) {
      cache.place_of.erase(cache.ids[place]);
    }
    if (added) cache.next = (cache.next + 1) % static_cast<size_t>(options_.rows);
    cache.ids[place] = ids[i];
    cache.applied[place] = applied;
    std::copy_n(rows.data() + i * dim, dim, cache.rows.data() + place * dim);
  }
}

}  // namespace tessera::recsys_train
