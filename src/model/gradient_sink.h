// Where the gradients of one use of a unit meet: a flat leaf is filled by the layer's backward of one
// micro-batch, sent in slices to the replicas that own them while backward goes on, and added there.
//
// Exact: every micro-batch is a leaf of the tree over the step's micro-batches (in groups of ep for experts,
// whose lower levels were added by the layer); the owner pushes them in ascending order into a binary counter,
// which holds log2(leaves) + 1 slices at most. Fast: units that FSDP shards are sent every slot and added to
// one slice; others are added up where they are and sent once, after the last slot.
#pragma once

#include <deque>
#include <memory>

#include "model/tree.h"
#include "model/unit.h"

namespace tessera::model {

class GradientSink;

// What the sinks of one rank share: bytes of gradient buffers, now and at the peak, and the sends under way, of
// which there are few, so that whole leaves do not pile up.
struct GradientMeter {
  static constexpr size_t kSendsUnderWay = 2;
  int64_t now = 0, peak = 0;
  std::deque<GradientSink*> sending;
  void change(int64_t bytes) {
    now += bytes;
    if (now > peak) peak = now;
  }
};

class GradientSink {
 public:
  GradientSink(Context& context, Unit& unit, GradientMeter& meter)
      : context_(context), unit_(unit), meter_(meter) {}

  // A flat float32 buffer of the unit's size for the gradient of one micro-batch; every tensor must be written.
  Tensor begin();
  // Hands it over. `last`: no more in this step. At most one send is under way; a second call waits for the
  // first.
  void end(Tensor leaf, bool last);
  // The sum of the step for this rank's slice (float32).
  Tensor finish();

 private:
  void send(Tensor leaf);
  void receive();  // waits for this sink's send, if there is one, and adds what came
  void add_up(std::vector<Tensor> leaves);

  Context& context_;
  Unit& unit_;
  GradientMeter& meter_;
  // under way
  Pending exchange_;
  Tensor sent_;
  std::vector<Tensor> received_;
  // sums
  TreeCounter counter_;  // exact
  Tensor sum_;           // fast: the whole unit before the send, or the slice
};

}  // namespace tessera::model
