// A model in the form that a server runs: weights of one tensor-parallel rank, packed from a Hugging Face
// directory or mapped as `tessera checkpoint export --quantize` wrote them, and a forward pass over a ragged
// step against paged KV.
//
// Bits: a token's logits depend on its own sequence only, never on its neighbours in the step, on the chunks
// its prompt came in, or on the layout: every sum that tensor parallelism may cut (the output and down
// projections) is computed per block of `tp_blocks`, in float32, and added by one binary tree; stages, replicas
// and owners of experts compute whole rows. Threads: one at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "comm/group.h"
#include "kernels/kernels.h"
#include "kernels/kv_pages.h"
#include "serve/layer.h"
#include "serve/lora.h"
#include "serve/place.h"
#include "serve/served_spec.h"
#include "serve/step_batch.h"

namespace tessera::serve {

// Blocks of the sums that tensor parallelism may cut: the largest of 4, 2, 1 that divides heads, KV heads and
// every FFN width of the model.
int64_t tp_blocks_of(const ModelSpec& spec);

// Keys and values of one rank, per layer; a multi-token-prediction layer is the last.
struct KvCache {
  std::vector<kernels::KvPages> layers;
  int64_t block_tokens = 16;
};

struct LoadOptions {
  // Of activations and KV, and of weights that are not in few bits: float32 or bfloat16.
  at::ScalarType dtype = at::kFloat;
  // Of KV in another type: bf16, int8 or fp8, when dtype is bfloat16.
  std::optional<kernels::KvType> kv;
  // Weights in few bits stay in the mapped file, which processes share, instead of being copied to large pages.
  // So do those of several ranks, and those that memory is too short for.
  bool map_weights = false;
  // With the first multi-token-prediction layer, which guesses ahead. One process.
  bool mtp = false;
  // Tensors read so far and in all; may be empty.
  std::function<void(int64_t done, int64_t total)> progress;
};

// The type of keys and values. Errors: one that does not go with dtype.
Result<kernels::KvType> kv_type_of(const LoadOptions& options);

// What a pass gives: logits [wanted, vocab], and, of a model with a multi-token-prediction layer, hidden states
// [tokens, hidden] behind the last norm.
struct PassRows {
  at::Tensor logits, hidden;
};

class ServedModel {
 public:
  // Reads config.json and the weights of one rank of the layout from a Hugging Face or a packed directory.
  // Errors: those of the files and of check_layout(); a tp that does not divide tp_blocks_of(); mtp where the
  // model has no such layer, or on several processes.
  static Result<ServedModel> load(const std::filesystem::path& directory, const Layout& layout, int64_t rank,
                                  const LoadOptions& options);
  // The ranks that forward() computes with; they must outlive it. Again after they have met anew. One rank
  // needs none.
  void connect(const RankGroups& groups);
  const ServePlace& place() const { return place_; }

  // Adapters that requests may ask for, by their index; to be added before any step runs. Errors: those of
  // load_lora(); more than one rank.
  Status add_adapter(const std::string& name, const std::filesystem::path& directory);
  const std::vector<LoraAdapter>& adapters() const { return adapters_; }

  bool has_mtp() const { return mtp_.has_value(); }

  const ServedSpec& spec() const { return spec_; }
  at::ScalarType dtype() const { return dtype_; }
  kernels::KvShape kv_shape(int64_t block_tokens) const;  // of one layer on this rank
  int64_t kv_bytes_per_token() const;                     // of all layers on this rank
  // block_tokens: a multiple of 16.
  Result<KvCache> make_cache(int64_t blocks, int64_t block_tokens) const;

  // Writes the step's keys and values into the cache; returns logits [wanted, vocab], float32, on ranks of the
  // last stage, and an undefined tensor on others. Collective over the ranks of this replica, and over those
  // that share its experts, also when the batch is empty. Errors: those of the groups; a token outside the
  // vocabulary.
  Result<at::Tensor> forward(const StepBatch& batch, KvCache& cache) const;
  // The same with hidden states. A multi-token-prediction layer gets its keys of the batch's tokens, but for
  // the first of each sequence.
  Result<PassRows> forward_rows(const StepBatch& batch, KvCache& cache) const;
  // The multi-token-prediction layer over tokens, each beside the hidden state (of forward_rows(), or of this)
  // of the token in front; writes its keys. No token is at position 0, which has none in front. REQUIRES:
  // has_mtp().
  Result<PassRows> predict_ahead(const StepBatch& batch, const at::Tensor& hidden, KvCache& cache) const;
  // The same for hidden states [tokens, hidden] after the last norm, in the type of the activations. Sequences
  // of an encoder are whole in the batch. REQUIRES: one rank.
  Result<at::Tensor> encode(const StepBatch& batch, KvCache& cache) const;

 private:
  friend class ModelBuilder;
  friend class FamilyBuilder;
  friend class ForwardPass;

  ServedModel() = default;
  Status check_tokens(const StepBatch& batch) const;
  static Status load_family(ServedModel& model, const std::filesystem::path& directory,
                            const LoadOptions& options);
  int64_t tp() const { return place_.tp; }
  int64_t local_heads() const { return spec_.heads / tp(); }
  int64_t local_kv_heads() const { return spec_.kv_heads / tp(); }
  int64_t local_vocab() const { return padded_vocab_ / tp(); }  // rows of this rank, with padding

  ServePlace place_;
  RankGroups groups_;
  ServedSpec spec_;
  at::ScalarType dtype_ = at::kFloat;
  kernels::KvType kv_type_ = kernels::KvType::f32;
  int64_t tp_blocks_ = 1, padded_vocab_ = 0;
  at::Tensor embedding_;  // rows of this rank, without padding; undefined when the head's are looked up
  kernels::QuantWeight quant_embedding_;
  at::Tensor positions_;             // a table of learned positions, or undefined
  Linear head_;                      // empty: an encoder
  std::vector<ServedLayer> layers_;  // of this stage
  Norm final_norm_;
  std::optional<MtpLayer> mtp_;
  kernels::RopeTable rope_;
  std::vector<LoraAdapter> adapters_;
};

}  // namespace tessera::serve
