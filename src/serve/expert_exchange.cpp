#include "serve/expert_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <numeric>

#include "kernels/kernels.h"

namespace tessera::serve {

using at::Tensor;

namespace {

Tensor gathered(const Tensor& rows, const Tensor& index) {
  Tensor out = at::empty_like(rows);
  if (rows.size(0) > 0) kernels::gather_rows(rows, index, out);
  return out;
}

}  // namespace

Result<ExpertExchange> ExpertExchange::plan(Group& group, std::span<const int64_t> first) {
  ExpertExchange exchange(group);
  const auto experts = std::ssize(first) - 1;
  std::vector<int64_t> mine(static_cast<size_t>(experts));
  std::vector<int64_t> all(static_cast<size_t>(experts * group.size()));
  for (size_t e = 0; e < mine.size(); ++e) mine[e] = first[e + 1] - first[e];
  TESSERA_RETURN_IF_ERROR(
      group.all_gather(bytes_of(std::span<const int64_t>(mine)), mutable_bytes_of(std::span<int64_t>(all))));
  exchange.count(all, experts);
  return exchange;
}

// counts: [ranks, experts]
void ExpertExchange::count(std::span<const int64_t> counts, int64_t experts) {
  const int64_t ranks = group_->size(), own = experts / ranks, begin = group_->rank() * own;
  auto rows = [&](int64_t rank, int64_t expert) {
    return counts[static_cast<size_t>(rank * experts + expert)];
  };
  for (int64_t rank = 0; rank < ranks; ++rank) {
    int64_t out = 0, in = 0;
    for (int64_t e = 0; e < own; ++e) {
      out += rows(group_->rank(), rank * own + e);
      in += rows(rank, begin + e);
    }
    sent_.push_back(out);
    received_.push_back(in);
  }
  const int64_t total = std::accumulate(received_.begin(), received_.end(), int64_t{0});
  by_expert_ = at::empty({total}, at::TensorOptions(at::kLong));
  by_rank_ = at::empty({total}, at::TensorOptions(at::kLong));
  std::vector<int64_t> next(received_.size());  // row of each rank that comes next
  std::exclusive_scan(received_.begin(), received_.end(), next.begin(), int64_t{0});
  first_.push_back(0);
  for (int64_t e = 0, place = 0; e < own; ++e) {
    for (int64_t rank = 0; rank < ranks; ++rank)
      for (int64_t i = 0; i < rows(rank, begin + e); ++i, ++place) {
        const int64_t at = next[static_cast<size_t>(rank)]++;
        by_expert_.mutable_data_ptr<int64_t>()[place] = at;
        by_rank_.mutable_data_ptr<int64_t>()[at] = place;
      }
    first_.push_back(place);
  }
}

// `outgoing` rows of each rank stand one behind the other.
Result<Tensor> ExpertExchange::exchange(const Tensor& rows, std::span<const int64_t> outgoing,
                                        std::span<const int64_t> incoming) const {
  const int64_t total = std::accumulate(incoming.begin(), incoming.end(), int64_t{0});
  Tensor received = at::empty({total, rows.size(1)}, rows.options());
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  const auto row_bytes = static_cast<size_t>(rows.size(1)) * rows.element_size();
  const auto* from = static_cast<const std::byte*>(rows.const_data_ptr());
  auto* to = static_cast<std::byte*>(received.mutable_data_ptr());
  for (size_t rank = 0; rank < outgoing.size(); ++rank) {
    const size_t leaving = static_cast<size_t>(outgoing[rank]) * row_bytes,
                 coming = static_cast<size_t>(incoming[rank]) * row_bytes;
    out.emplace_back(from, leaving);
    in.emplace_back(to, coming);
    from += leaving;
    to += coming;
  }
  TESSERA_RETURN_IF_ERROR(group_->all_to_all(out, in));
  return received;
}

Result<Tensor> ExpertExchange::dispatch(const Tensor& rows) const {
  TESSERA_ASSIGN_OR_RETURN(Tensor received, exchange(rows, sent_, received_));
  return gathered(received, by_expert_);
}

Result<Tensor> ExpertExchange::collect(const Tensor& results) const {
  return exchange(gathered(results, by_rank_), received_, sent_);
}

}  // namespace tessera::serve
