#include "recsys/wire_end.h"

#include <algorithm>

namespace tessera::recsys {

WireEnd::WireEnd(const WireConfig& config, const std::vector<int64_t>& dims) : config_(config) {
  for (int64_t dim : dims) groups_.push_back(std::make_unique<Group>(dim));
}

void WireEnd::count(size_t packed, size_t ids, size_t floats) {
  bytes_ += static_cast<int64_t>(packed);
  raw_bytes_ += static_cast<int64_t>(ids * sizeof(uint64_t) + floats * sizeof(float));
}

SortedIds WireEnd::ask(std::span<const uint64_t> ids, Bytes& request) {
  const size_t before = request.size();
  SortedIds sorted = sort_ids(ids);
  pack_ids(sorted.ids, request);
  count(request.size() - before, ids.size(), 0);
  return sorted;
}

Status WireEnd::take(int64_t group, const SortedIds& ids, std::span<const std::byte> answer,
                     std::span<float> rows) {
  const size_t dim = groups_[static_cast<size_t>(group)]->dim;
  count(answer.size(), 0, rows.size());
  TESSERA_ASSIGN_OR_RETURN(auto values, unpack_rows(answer));
  if (values.size() != ids.ids.size() * dim || !answer.empty())
    return make_error(ErrorCode::data_loss, "{} values for {} rows of dimension {}", values.size(),
                      ids.ids.size(), dim);
  for (size_t i = 0; i < ids.places.size(); ++i)
    std::copy_n(values.data() + ids.places[i] * dim, dim, rows.data() + i * dim);
  return {};
}

bool WireEnd::give(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                   Bytes& request) {
  Group& state = *groups_[static_cast<size_t>(group)];
  SortedIds sorted = sort_ids(ids);
  if (sorted.ids.size() != ids.size()) return false;
  std::vector<float> in_order(gradients.size());
  for (size_t i = 0; i < ids.size(); ++i)
    std::copy_n(gradients.data() + i * state.dim, state.dim, in_order.data() + sorted.places[i] * state.dim);
  const size_t before = request.size();
  pack_ids(sorted.ids, request);
  if (config_.error_feedback && config_.gradients != RowType::f32) {
    std::lock_guard lock(state.mutex);
    state.feedback.pack(sorted.ids, in_order, {.type = config_.gradients}, request);
  } else {
    pack_rows(in_order, {.type = config_.gradients}, request);
  }
  count(request.size() - before, ids.size(), gradients.size());
  return true;
}

}  // namespace tessera::recsys
