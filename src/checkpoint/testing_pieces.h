// States for this part's tests: a value for every element of every tensor that depends on its name, kind and
// place alone, and the pieces that a layout's ranks hold of it.
#pragma once

#include <ATen/ops/empty.h>

#include <bit>
#include <functional>

#include "checkpoint/boxes.h"
#include "checkpoint/state_kind.h"
#include "core/hash.h"
#include "layout/extents.h"

namespace tessera::checkpoint::testing {

inline ModelSpec tiny_model(bool moe, bool tied = false) {
  ModelSpec model;
  model.architecture = moe ? Architecture::qwen3_moe : Architecture::llama;
  model.layers = 2, model.hidden = 16, model.ffn = 24, model.heads = 4, model.kv_heads = 4, model.head_dim = 4;
  model.vocab = 37, model.max_positions = 64, model.tied = tied, model.qk_norm = moe;
  if (moe) model.moe = {.experts = 4, .top_k = 2, .ffn = 8};
  return model;
}

// Between -1 and 1, with a full float32 mantissa. `version` stands for the training step.
inline float state_value(const std::string& name, StateKind kind, int64_t flat, int64_t version = 0) {
  uint64_t key =
      hash64(std::as_bytes(std::span(name)), static_cast<uint64_t>(kind) + 10 * static_cast<uint64_t>(version));
  uint64_t bits = hash64(std::as_bytes(std::span(&flat, 1)), key);
  return std::bit_cast<float>(0x40000000u | static_cast<uint32_t>(bits & 0x7fffff)) - 3.0f;
}

// The values of a box of `shape`.
inline at::Tensor state_of_box(const TensorSpec& tensor, StateKind kind, const Extent& box,
                               int64_t version = 0) {
  at::Tensor values = at::empty({box.elements()}, at::kFloat);
  float* out = values.mutable_data_ptr<float>();
  for_each_run(box, whole_box(tensor.shape), box, [&](const Run& run) {
    for (int64_t i = 0; i < run.length; ++i)
      out[run.at_b + i] = state_value(tensor.name, kind, run.at_a + i, version);
  });
  return values;
}

// What one rank of a layout holds when masters are sharded over the replicas that share a tensor: the box of
// its tp place, and of that the flat range of its place among the replicas.
inline std::vector<Piece> pieces_of_rank(const ModelSpec& model, const Work& work, const Layout& layout,
                                         int64_t rank, int64_t version = 0) {
  std::vector<Piece> pieces;
  Coordinate place = coordinate_of(layout, rank);
  for (const TensorSpec& tensor : inventory(model)) {
    if (!holds(model, tensor, layout, place)) continue;
    Extent box = tp_extent(tensor, layout.tp, place.tp, work.tp_blocks);
    std::vector<int64_t> sharers =
        tensor.expert >= 0 ? expert_replica_ranks(layout, rank) : replica_ranks(layout, rank);
    auto mine = std::find(sharers.begin(), sharers.end(), rank) - sharers.begin();
    auto shards = static_cast<int64_t>(sharers.size());
    int64_t each = (box.elements() + shards - 1) / shards;
    int64_t begin = std::min(box.elements(), each * mine), end = std::min(box.elements(), begin + each);
    // A tensor that tp does not split is held by every tp place; so is a tied embedding by two stages.
    bool primary =
        (tensor.split != Split::none || place.tp == 0) && !(tensor.role == Role::embedding && place.pp > 0);
    for (const Extent& part : extents_of_range(box, begin, end))
      for (StateKind kind : kStateKinds)
        pieces.push_back({tensor.name, kind, part, state_of_box(tensor, kind, part, version), primary});
  }
  return pieces;
}

inline std::vector<Piece> pieces_of_all(const ModelSpec& model, const Work& work, const Layout& layout) {
  std::vector<Piece> all;
  for (int64_t rank = 0; rank < layout.processes(); ++rank)
    for (Piece& piece : pieces_of_rank(model, work, layout, rank)) all.push_back(std::move(piece));
  return all;
}

// Elements that differ between the reader and the closed form, over everything that `rank` of `layout` holds.
inline Result<int64_t> wrong_elements(PieceReader& reader, const ModelSpec& model, const Work& work,
                                      const Layout& layout, int64_t rank, int64_t version = 0) {
  int64_t wrong = 0;
  for (const Piece& piece : pieces_of_rank(model, work, layout, rank, version)) {
    at::Tensor out = at::empty({piece.box.elements()}, at::kFloat);
    TESSERA_RETURN_IF_ERROR(reader.read(piece.tensor, piece.kind, piece.box, out));
    const float *got = out.const_data_ptr<float>(), *expected = piece.values.const_data_ptr<float>();
    for (int64_t i = 0; i < piece.box.elements(); ++i)
      wrong += std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(expected[i]);
  }
  return wrong;
}

}  // namespace tessera::checkpoint::testing
