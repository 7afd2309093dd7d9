// What one group of features looks like in the store: the shape and type of its rows, how a row comes into
// being, which optimizer updates it, which ids get a row at all, and which rows go when memory is short.
//
// Text forms are those of configuration files: "bf16", "adagrad-row", "lru".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tessera::recsys {

// How a row lies in memory. i8: dim signed bytes and one float32 scale, value = scale * byte.
enum class RowType : uint8_t { f32, bf16, f16, i8 };

// The value of a row that nobody has written yet. It is a function of (seed, id, position) alone, so it does
// not depend on the number of servers, the order of first touches, or an eviction in between.
struct InitOptions {
  enum class Kind : uint8_t { zeros, constant, uniform, normal };
  Kind kind = Kind::uniform;
  float low = -0.01f, high = 0.01f;   // uniform
  float mean = 0, deviation = 0.01f;  // normal
  float value = 0;                    // constant
  uint64_t seed = 0;
};

// The optimizer of a group; its state lies in the row. Formulas: row_update.h.
struct OptimizerOptions {
  enum class Kind : uint8_t {
    sgd,          // momentum and Nesterov as in torch.optim.SGD; no state when momentum = 0
    adagrad,      // one accumulator per element, torch.optim.Adagrad
    adagrad_row,  // one accumulator per row: the mean of squares, as in FBGEMM
    adam,         // torch.optim.Adam; each row counts its own updates
    adamw,        // torch.optim.AdamW
    ftrl,         // FTRL-proximal, McMahan et al. 2013
    lamb_row,     // LAMB with the trust ratio and the second moment of each row
  };
  Kind kind = Kind::adagrad;
  double learning_rate = 0.01;
  double weight_decay = 0;
  double epsilon = 1e-10f;  // torch: 1e-10 for Adagrad, 1e-8 for Adam
  double momentum = 0;
  bool nesterov = false;
  double initial_accumulator = 0;  // Adagrad
  // Adagrad of Persia divides by the accumulator before the new square is added.
  bool accumulate_after = false;
  double beta1 = 0.9, beta2 = 0.999;     // Adam, AdamW, LAMB
  double ftrl_beta = 1, l1 = 0, l2 = 0;  // FTRL
};

// Which ids get a row. A refused id reads as zeros, and its gradients are dropped and counted.
struct AdmissionOptions {
  enum class Kind : uint8_t { all, probability, counter, bloom };
  Kind kind = Kind::all;
  double probability = 1;            // of a row at each get of an id without one
  uint32_t threshold = 2;            // counter, bloom: the get at which a row is made, counted from 1
  int64_t bloom_counters = 1 << 20;  // one byte each; false admissions fall as this grows
};

// What goes when the memory budget of the group is reached: away, or to disk where the store has a folder for
// it.
struct EvictionOptions {
  enum class Kind : uint8_t { none, lru, lfu, ttl, l2_norm, score };
  Kind kind = Kind::none;
  // Of the group's rows in memory with all that belongs to them; 0: no budget. Rows on disk keep some 10 bytes
  // each in memory, which count, but a quarter of the budget is left to rows.
  int64_t budget_bytes = 0;
  uint64_t ttl_steps = 0;  // ttl: rows untouched for longer go, budget or not
};

struct GroupOptions {
  std::string name = "default";
  int64_t dim = 16;
  RowType row_type = RowType::f32;
  bool stochastic_rounding = false;  // for row types other than f32: unbiased instead of nearest
  InitOptions init;
  OptimizerOptions optimizer;
  AdmissionOptions admission;
  EvictionOptions eviction;
  int64_t expected_rows = 0;  // a hint: the index starts at that size instead of growing to it
};

// Where rows go that a budget sends out of memory. They come back when they are asked for, and nothing is lost.
struct DiskOptions {
  std::string folder;        // empty: such rows are dropped
  int64_t budget_bytes = 0;  // of each group's file; 0: as much as the file system has
  // Past the page cache: a row on disk costs a read of the device, and memory stays with others.
  bool direct = false;
  bool io_uring = true;  // false: threads that read, as where the system refuses io_uring
};

// Bytes of the values of one row, of its optimizer state, and of the words its policies keep.
int64_t row_bytes(const GroupOptions& group);
int64_t state_bytes(const GroupOptions& group);
int64_t policy_bytes(const GroupOptions& group);

// Every value in its range, or an error that names group and field.
Status validate(const GroupOptions& group);

Result<RowType> parse_row_type(std::string_view text);
Result<InitOptions::Kind> parse_init(std::string_view text);
Result<OptimizerOptions::Kind> parse_optimizer(std::string_view text);
Result<AdmissionOptions::Kind> parse_admission(std::string_view text);
Result<EvictionOptions::Kind> parse_eviction(std::string_view text);
const char* to_string(RowType type);
const char* to_string(InitOptions::Kind kind);
const char* to_string(OptimizerOptions::Kind kind);
const char* to_string(AdmissionOptions::Kind kind);
const char* to_string(EvictionOptions::Kind kind);

}  // namespace tessera::recsys
