// What the embedding worker does with the ids of a batch: name each distinct id once, fetch its row, pool the
// rows of each slot; and on the way back sum the gradients of each distinct id.
//
// Slots belong to groups (own optimizer, own staleness bound), all of one dimension D. A model with a linear
// part has a second group of dimension 1 beside each of them, with the same ids. In the store a key is the
// slot's number in the top 8 bits and 56 bits of the id, so slots share no row unless the plan says so.
//
// Shapes: B rows, S slots, P places (S without sequences), Q sequences, D dimension, U distinct keys of a group
// in the batch. Bits: a row's gradient is summed in the order of the batch's rows, so it does not depend on
// servers or threads.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "recsys_data/batch.h"
#include "recsys_train/sequence.h"
#include "recsys_train/servers.h"

namespace tessera::recsys_train {

enum class Pooling : uint8_t { sum, mean, sqrt_n };
Result<Pooling> parse_pooling(std::string_view text);
const char* to_string(Pooling pooling);

struct SlotPlan {
  int64_t group = 0;
  Pooling pooling = Pooling::sum;
  // Of a behaviour sequence: so many of its last ids keep a row each, for the dense network to pool
  // (sequence.h). 0: pooled here.
  int64_t sequence = 0;
  int64_t rows_of = -1;  // the slot whose rows it shares, the target of a sequence; -1: its own
};

struct LookupPlan {
  std::vector<SlotPlan> slots;
  int64_t num_groups =
      1;  // of dimension `dim`; with `wide`, store group 2 g is group g and 2 g + 1 its linear part
  int64_t dim = 16;
  bool wide = false;

  // Of pooled rows in a batch row: one for each slot, and as many as it is long for a sequence.
  int64_t places_of(size_t slot) const { return std::max<int64_t>(1, slots[slot].sequence); }
  int64_t num_places() const;
  std::vector<SequencePlace> sequences() const;
  size_t rows_of(size_t slot) const {
    return slots[slot].rows_of < 0 ? slot : static_cast<size_t>(slots[slot].rows_of);
  }

  int64_t store_group(int64_t group) const { return wide ? 2 * group : group; }
  int64_t store_groups() const { return wide ? 2 * num_groups : num_groups; }
};

inline uint64_t key_of(size_t slot, uint64_t id) {
  return (static_cast<uint64_t>(slot + 1) << 56) | (id & ((uint64_t{1} << 56) - 1));
}

// Distinct keys of a group and what belongs to them.
struct GroupRows {
  std::vector<uint64_t> keys;               // [U]
  std::vector<float> rows, gradients;       // [U, D]
  std::vector<float> wide, wide_gradients;  // [U]
};

struct Lookup {
  int64_t batch_rows = 0;
  std::vector<GroupRows> groups;
  std::vector<std::vector<int32_t>>
      positions;                              // of each slot: place of each of its ids in the keys of its group
  std::vector<std::vector<int64_t>> offsets;  // of each slot: [B + 1], or empty for one id in a row
};

// Finds the distinct keys of batches; keeps its table between them. Threads: one.
class Deduplicator {
 public:
  explicit Deduplicator(LookupPlan plan) : plan_(std::move(plan)) {}
  void run(const recsys_data::Batch& batch, Lookup& lookup);

 private:
  struct Table {
    std::vector<uint64_t> keys;
    std::vector<int32_t> places;  // -1: free
    std::vector<size_t> used;
  };
  void clear(Table& table, size_t ids);
  int32_t place_of(Table& table, uint64_t key, std::vector<uint64_t>& keys);
  LookupPlan plan_;
  std::vector<Table> tables_;  // of each group
};

// Rows of one group of a batch from the servers.
Status fetch(EmbeddingServers& servers, const LookupPlan& plan, int64_t group, const GetOptions& options,
             Lookup& lookup);
// What a dense network gets of a batch: pooled [B, P, D]; wide [B, S] where the plan has it; lengths [B, Q] of
// its sequences.
struct PooledRows {
  std::span<float> pooled, wide, lengths;
};
void pool(const LookupPlan& plan, const Lookup& lookup, const PooledRows& out);
constexpr int64_t kAllGroups = -1;

// Gradients of pooled values to those of the distinct rows of one group, or all, which are set.
void unpool(const LookupPlan& plan, int64_t group, std::span<const float> pooled_gradient,
            std::span<const float> wide_gradient, Lookup& lookup);
// Hands the gradients of one group to the servers, numbered by step and part so that they are applied once.
struct StepPart {
  int64_t part = 0, step = 0;
};
Status update(EmbeddingServers& servers, const LookupPlan& plan, int64_t group, const GroupRows& rows,
              const StepPart& at);

}  // namespace tessera::recsys_train
