// The dense network on the trainers: its time, and the memory of a device. Same units and thread rules as
// step.h.
#pragma once

#include "plan/recsys/step.h"

namespace tessera::plan::recsys {

struct DenseTime {
  double compute = 0;  // products, and the host's part of a step
  double exposed = 0;  // of the all-reduce, what backward does not hide
};
DenseTime dense_time(const Work& work, const Pools& pools, const Engine& engine, const Layout& layout);

// Without rows.
TrainerMemory dense_memory(const Work& work, const Layout& layout, const BatchIds& ids);

}  // namespace tessera::plan::recsys
