// What a dense trainer must not forget when it is killed: its weights and optimizer state after its last step,
// and the gradients of the steps whose rows may not have been updated yet. It lies in shared memory, so that
// the next process goes on where this one ended.
//
// States are written in turn to two places and committed by one counter, so one of them is always whole. The
// gradients of a step are kept before anybody else sees them: what a trainer told its peers and servers it can
// tell again.
//
//   0      Header
//   4096   2 states of `state_floats`
//   then   `slots` times { u64 step + 1 once whole, Standing, `gradient_floats` }; step s is in slot s % slots
//
// Threads: commit() and keep() from one; others may read slots that are kept.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "recsys/region.h"

namespace tessera::recsys_train {

// Where a trainer stands: the next round of batches it will train on.
struct Standing {
  int64_t epoch = 0, round = 0, step = 0;
  int64_t optimizer_steps = 0;
  int64_t rows = 0;  // of this epoch, of all trainers
  double loss = 0;   // their sum of losses
};

class TrainerMemory {
 public:
  struct Shape {
    int64_t state_floats = 0, gradient_floats = 0, slots = 1;
    friend bool operator==(const Shape&, const Shape&) = default;
  };
  // `path`: of a shared file, made when it is empty; an empty path takes private memory.
  // Errors: those of the file; data_loss when a trainer of another shape wrote it.
  static Result<std::unique_ptr<TrainerMemory>> open(const std::string& path, const Shape& shape);

  bool fresh() const { return header().commits.load(std::memory_order_acquire) == 0; }
  // REQUIRES: not fresh.
  const Standing& standing() const { return header().progress[place()]; }
  std::span<const float> state() const { return {state_at(place()), count(shape_.state_floats)}; }

  // Where the next state goes, and its commit.
  std::span<float> next_state() { return {state_at(1 - place()), count(shape_.state_floats)}; }
  void commit(const Standing& progress);

  // Gradients of a step. draft() forgets what lay there before; keep() makes it last.
  std::span<float> draft(int64_t step);
  void keep(const Standing& at);
  struct Kept {
    Standing at;
    std::span<const float> gradients;
  };
  std::optional<Kept> kept(int64_t step) const;
  int64_t slots() const { return shape_.slots; }

 private:
  struct Header {
    static constexpr uint64_t kMagic = 0x3130726e72747354;  // "Tstrnr01"
    uint64_t magic;
    Shape shape;
    std::atomic<uint64_t> commits;
    Standing progress[2];
  };
  struct Slot {
    std::atomic<uint64_t> step;  // plus one; 0: nothing whole
    Standing at;
  };
  static size_t count(int64_t floats) { return static_cast<size_t>(floats); }
  Header& header() const { return *reinterpret_cast<Header*>(region_.data()); }
  size_t place() const { return header().commits.load(std::memory_order_acquire) % 2; }
  float* state_at(size_t place) const;
  Slot& slot(int64_t step) const;

  recsys::Region region_;
  Shape shape_;
};

}  // namespace tessera::recsys_train
