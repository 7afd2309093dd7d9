#include "model/dispatch.h"

#include <numeric>

#include "model/failure.h"
#include "model/tree.h"

namespace tessera::model {

Dispatch::Dispatch(Context& context, const Tensor& expert) : context_(context), top_k_(expert.size(1)) {
  sort(expert);
  exchange_counts();
}

int64_t& Dispatch::count(int64_t tp, int64_t ep, int64_t expert, int64_t chunk) {
  int64_t index =
      ((tp * context_.layout.ep + ep) * context_.local_experts() + expert) * context_.local_chunks() + chunk;
  return counts_[static_cast<size_t>(index)];
}

// Counting sort by expert; tokens come in order, so each expert's rows are in order of chunk and token.
void Dispatch::sort(const Tensor& expert) {
  int64_t tokens = expert.size(0), chunks = context_.local_chunks(), experts = context_.spec.moe.experts;
  int64_t length = tokens / chunks;
  const int32_t* chosen = expert.const_data_ptr<int32_t>();
  my_counts_.assign(static_cast<size_t>(experts * chunks), 0);
  for (int64_t i = 0; i < tokens * top_k_; ++i)
    ++my_counts_[static_cast<size_t>(chosen[i] * chunks + i / top_k_ / length)];

  std::vector<int64_t> next(static_cast<size_t>(experts), 0);
  for (int64_t e = 1; e < experts; ++e) {
    auto begin = my_counts_.begin() + (e - 1) * chunks;
    next[static_cast<size_t>(e)] =
        next[static_cast<size_t>(e - 1)] + std::accumulate(begin, begin + chunks, int64_t{0});
  }
  row_of_slot_ = make({tokens, top_k_}, at::kLong);
  token_of_row_ = make({tokens * top_k_}, at::kLong);
  for (int64_t i = 0; i < tokens * top_k_; ++i) {
    int64_t row = next[static_cast<size_t>(chosen[i])]++;
    row_of_slot_.data_ptr<int64_t>()[i] = row;
    token_of_row_.data_ptr<int64_t>()[row] = i / top_k_;
  }
}

void Dispatch::exchange_counts() {
  int64_t tp = context_.layout.tp, ep = context_.layout.ep, experts = context_.spec.moe.experts;
  int64_t local = context_.local_experts(), chunks = context_.local_chunks(), mine = local * chunks;
  // Rows for each owner from each ep place, then the same of the other tp places.
  std::vector<int64_t> from_ep(static_cast<size_t>(ep * mine));
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  for (int64_t place = 0; place < ep; ++place) {
    auto at = static_cast<size_t>(place * mine), size = static_cast<size_t>(mine);
    out.push_back(bytes_of(std::span<const int64_t>(my_counts_).subspan(at, size)));
    in.push_back(mutable_bytes_of(std::span(from_ep).subspan(at, size)));
  }
  check(context_.groups.ep->all_to_all(out, in));
  counts_.resize(static_cast<size_t>(tp * ep * mine));
  check(context_.groups.tp->all_gather(bytes_of(std::span<const int64_t>(from_ep)),
                                       mutable_bytes_of(std::span(counts_))));

  first_.resize(counts_.size());
  std::exclusive_scan(counts_.begin(), counts_.end(), first_.begin(), int64_t{0});
  owner_rows_ = first_.back() + counts_.back();
  for (int64_t i = 0; i < tp * ep; ++i)
    received_.push_back(
        std::accumulate(counts_.begin() + i * mine, counts_.begin() + (i + 1) * mine, int64_t{0}));

  std::vector<int64_t> all(static_cast<size_t>(tp * experts * chunks));
  check(context_.groups.tp->all_gather(bytes_of(std::span<const int64_t>(my_counts_)),
                                       mutable_bytes_of(std::span(all))));
  tokens_of_expert_.assign(static_cast<size_t>(experts), 0);
  for (size_t i = 0; i < all.size(); ++i)
    tokens_of_expert_[i / static_cast<size_t>(chunks) % static_cast<size_t>(experts)] += all[i];
}

int64_t Dispatch::sent_to(int64_t owner) const {
  int64_t mine = context_.local_experts() * context_.local_chunks();
  auto begin = my_counts_.begin() + owner * mine;
  return std::accumulate(begin, begin + mine, int64_t{0});
}

Tensor Dispatch::to_experts(const Tensor& sorted) const {
  int64_t tp = context_.layout.tp, ep = context_.layout.ep, width = sorted.size(1);
  if (tp * ep == 1) return sorted;
  Tensor all = make({owner_rows_, width}, sorted.scalar_type());
  // My tp place's part is filled by ep, then every place's part is sent to the others.
  std::vector<Tensor> part;
  int64_t at = 0;
  for (int64_t place = 0; place < tp; ++place) {
    auto begin = received_.begin() + place * ep;
    int64_t count = std::accumulate(begin, begin + ep, int64_t{0});
    part.push_back(model::rows(all, at, count));
    at += count;
  }
  const Tensor& mine = part[static_cast<size_t>(context_.at.tp)];
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  int64_t sent = 0, got = 0;
  for (int64_t place = 0; place < ep; ++place) {
    out.push_back(bytes(model::rows(sorted, sent, sent_to(place))));
    sent += sent_to(place);
    int64_t count = received_[static_cast<size_t>(context_.at.tp * ep + place)];
    in.push_back(mutable_bytes(model::rows(mine, got, count)));
    got += count;
  }
  check(context_.groups.ep->all_to_all(out, in));
  if (tp == 1) return all;
  Tensor copy = mine.clone();  // a rank's own part must not be read and written at once
  std::vector<Bytes> to(static_cast<size_t>(tp), bytes(copy));
  std::vector<MutableBytes> from;
  for (const Tensor& p : part) from.push_back(mutable_bytes(p));
  check(context_.groups.tp->all_to_all(to, from));
  return all;
}

Tensor Dispatch::from_experts(Tensor partial, at::ScalarType dtype) const {
  int64_t tp = context_.layout.tp, ep = context_.layout.ep, width = partial.size(1);
  Tensor sum = partial;
  if (tp > 1) {  // reduce-scatter by tp place of the tokens
    std::vector<Bytes> out;
    std::vector<MutableBytes> in;
    std::vector<Tensor> nodes;
    auto mine_begin = received_.begin() + context_.at.tp * ep;
    int64_t mine = std::accumulate(mine_begin, mine_begin + ep, int64_t{0}), at = 0;
    for (int64_t place = 0; place < tp; ++place) {
      auto begin = received_.begin() + place * ep;
      int64_t count = std::accumulate(begin, begin + ep, int64_t{0});
      out.push_back(bytes(model::rows(partial, at, count)));
      at += count;
      nodes.push_back(make_float({mine, width}));
      in.push_back(mutable_bytes(nodes.back()));
    }
    check(context_.groups.tp->all_to_all(out, in));
    sum = tree_sum(std::move(nodes));
  }
  Tensor rounded = to_dtype(sum, dtype);
  if (ep == 1) return rounded;
  Tensor sorted = make({token_of_row_.size(0), width}, dtype);
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  int64_t sent = 0, got = 0;
  for (int64_t place = 0; place < ep; ++place) {
    int64_t count = received_[static_cast<size_t>(context_.at.tp * ep + place)];
    out.push_back(bytes(model::rows(rounded, sent, count)));
    sent += count;
    in.push_back(mutable_bytes(model::rows(sorted, got, sent_to(place))));
    got += sent_to(place);
  }
  check(context_.groups.ep->all_to_all(out, in));
  return sorted;
}

std::vector<Segment> Dispatch::of_expert(int64_t expert) const {
  std::vector<Segment> segments;
  for (int64_t tp = 0; tp < context_.layout.tp; ++tp)
    for (int64_t ep = 0; ep < context_.layout.ep; ++ep) {
      Segment segment = leaf(expert, ep, tp * context_.local_chunks());
      for (int64_t chunk = 1; chunk < context_.local_chunks(); ++chunk)
        segment.count += count(tp, ep, expert, chunk);
      if (segment.count > 0) segments.push_back(segment);
    }
  return segments;
}

Segment Dispatch::leaf(int64_t expert, int64_t ep_place, int64_t chunk) const {
  int64_t chunks = context_.local_chunks(), tp = chunk / chunks;
  int64_t index =
      ((tp * context_.layout.ep + ep_place) * context_.local_experts() + expert) * chunks + chunk % chunks;
  return {first_[static_cast<size_t>(index)], counts_[static_cast<size_t>(index)]};
}

}  // namespace tessera::model
