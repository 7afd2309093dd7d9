#include "comm/collectives.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tessera::comm {
namespace {

// Memory that may overlap or be the same.
void copy(MutableBytes to, Bytes from) {
  if (!from.empty() && to.data() != from.data()) std::memmove(to.data(), from.data(), from.size());
}

MutableBytes block(MutableBytes all, int64_t index, size_t bytes) {
  return all.subspan(static_cast<size_t>(index) * bytes, bytes);
}

// Wraps around like the hardware does; order cannot matter.
int64_t sum(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
float greater(float a, float b) {
  return std::isnan(a) || a >= b ? a : b;  // not-a-number wins, from either side: a < NaN is false
}

// Rank r combines elements [start(r), start(r + 1)).
struct Shares {
  size_t elements, ranks;
  size_t start(size_t rank) const { return elements * rank / ranks; }
  template <class T>
  std::span<T> of(std::span<T> values, int64_t rank) const {
    size_t r = static_cast<size_t>(rank);
    return values.subspan(start(r), start(r + 1) - start(r));
  }
};

template <class T, class Combine>
void combine_in_rank_order(std::span<T> mine, int64_t rank, const std::vector<std::vector<T>>& others,
                           Combine combine) {
  for (size_t i = 0; i < mine.size(); ++i) {
    T own = mine[i];
    T result = rank == 0 ? own : others[0][i];
    for (size_t r = 1; r < others.size(); ++r) {
      result = combine(result, static_cast<int64_t>(r) == rank ? own : others[r][i]);
    }
    mine[i] = result;
  }
}

template <class T, class Combine>
Status run_all_reduce(Conversation& talk, std::span<T> values, Combine combine) {
  Shares shares{values.size(), static_cast<size_t>(talk.size())};
  std::span<T> mine = shares.of(values, talk.rank());
  std::vector<std::vector<T>> others(static_cast<size_t>(talk.size()));
  for (int64_t d = 1; d < talk.size(); ++d) {
    int64_t to = talk.peer(d), from = talk.peer(-d);
    others[static_cast<size_t>(from)].resize(mine.size());
    talk.send(to, std::as_bytes(shares.of(values, to)));
    talk.receive(from, std::as_writable_bytes(std::span<T>(others[static_cast<size_t>(from)])));
  }
  TESSERA_RETURN_IF_ERROR(talk.finish());
  combine_in_rank_order(mine, talk.rank(), others, combine);
  for (int64_t d = 1; d < talk.size(); ++d) {
    talk.send(talk.peer(d), std::as_bytes(mine));
    talk.receive(talk.peer(-d), std::as_writable_bytes(shares.of(values, talk.peer(-d))));
  }
  return talk.finish();
}

}  // namespace

// Dissemination: after round k every rank has heard, through others, of 2^(k+1) ranks.
Status run_barrier(Conversation& talk) {
  for (int64_t d = 1; d < talk.size(); d *= 2) {
    talk.send(talk.peer(d), {});
    talk.receive(talk.peer(-d), {});
    TESSERA_RETURN_IF_ERROR(talk.finish());
  }
  return {};
}

// Binomial tree over distances from the root: `v` hears from v without its lowest bit and tells v + smaller
// bits.
Status run_broadcast(Conversation& talk, int64_t root, MutableBytes data) {
  int64_t n = talk.size(), v = talk.peer(-root), bit = 1;
  while (bit < n && (v & bit) == 0) bit *= 2;
  if (v != 0) {
    talk.receive((v - bit + root) % n, data);
    TESSERA_RETURN_IF_ERROR(talk.finish_part());
  }
  for (bit /= 2; bit >= 1; bit /= 2) {
    if (v + bit < n) talk.send((v + bit + root) % n, data);
  }
  return talk.finish();
}

Status run_all_gather(Conversation& talk, Bytes mine, MutableBytes all) {
  for (int64_t d = 1; d < talk.size(); ++d) {
    talk.send(talk.peer(d), mine);
    talk.receive(talk.peer(-d), block(all, talk.peer(-d), mine.size()));
  }
  copy(block(all, talk.rank(), mine.size()), mine);
  return talk.finish();
}

Status run_all_to_all(Conversation& talk, std::span<const Bytes> out, std::span<const MutableBytes> in) {
  for (int64_t d = 1; d < talk.size(); ++d) {
    size_t to = static_cast<size_t>(talk.peer(d)), from = static_cast<size_t>(talk.peer(-d));
    if (!out[to].empty()) talk.send(talk.peer(d), out[to]);
    if (!in[from].empty()) talk.receive(talk.peer(-d), in[from]);
  }
  size_t me = static_cast<size_t>(talk.rank());
  copy(in[me], out[me]);
  return talk.finish();
}

Status run_all_reduce_sum(Conversation& talk, std::span<int64_t> values) {
  return run_all_reduce(talk, values, sum);
}
Status run_all_reduce_max(Conversation& talk, std::span<float> values) {
  return run_all_reduce(talk, values, greater);
}

}  // namespace tessera::comm
