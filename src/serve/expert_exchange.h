// Experts spread over the ranks that attend to different requests: rows travel to the rank that owns their
// expert, and what it makes of them comes back.
//
// Bits: a row's result depends on the row only, and comes back to the place it left, so nothing changes.
// Threads: one at a time; every call is collective over the group.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "comm/group.h"

namespace tessera::serve {

class ExpertExchange {
 public:
  // first[e] .. first[e + 1]: rows of this rank for expert e, of all experts. Rank r of the group owns experts
  // [r, r + 1) * experts / size.
  static Result<ExpertExchange> plan(Group& group, std::span<const int64_t> first);

  // All ranks' rows [N, D] for this rank's own experts, sorted by them: own expert e has rows [first()[e],
  // first()[e + 1]), in the order of ranks.
  Result<at::Tensor> dispatch(const at::Tensor& rows) const;
  std::span<const int64_t> first() const { return first_; }
  // The way back: of results in the order of dispatch(), this rank's, in the order of its rows.
  Result<at::Tensor> collect(const at::Tensor& results) const;

 private:
  explicit ExpertExchange(Group& group) : group_(&group) {}
  void count(std::span<const int64_t> counts, int64_t experts);
  Result<at::Tensor> exchange(const at::Tensor& rows, std::span<const int64_t> outgoing,
                              std::span<const int64_t> incoming) const;

  Group* group_;
  std::vector<int64_t> sent_, received_;  // rows to and from each rank
  std::vector<int64_t> first_;
  at::Tensor by_expert_, by_rank_;  // order of received rows: by expert, and back
};

}  // namespace tessera::serve
