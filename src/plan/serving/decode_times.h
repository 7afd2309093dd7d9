// Seconds of steps in which everything decodes, many at once. At a fixed number of sequences a step's time is a
// straight line in the mean context, with a bend where a window or a sparse selection is full; so the sum over
// steps whose contexts grow by a token each is known in closed form and equals the sum of single steps.
//
// Threads: one at a time (times of each number of sequences are kept).
#pragma once

#include <cstdint>
#include <vector>

#include "plan/serving/step_time.h"

namespace tessera::plan::serving {

class DecodeTimes {
 public:
  // `growth`: tokens that a context grows by in a step. REQUIRES: `model` outlives this.
  explicit DecodeTimes(const StepModel& model, double growth = 1);

  // Of `steps` steps of `sequences` sequences whose mean context is `context` in the first of them.
  double seconds(int64_t sequences, double context, int64_t steps);
  // The fewest steps, at most `most`, that take `seconds` or more.
  int64_t steps_for(int64_t sequences, double context, double seconds, int64_t most);

 private:
  struct Piece {  // of the time that reading the cache of one sequence takes, from `from` on
    double from, value, slope;
  };
  double cache_sum(double context, int64_t steps) const;
  double step_without_cache(int64_t sequences);

  const StepModel& model_;
  double growth_;
  std::vector<Piece> pieces_;
  std::vector<double> without_cache_;  // by sequences; below 0: not yet known
};

}  // namespace tessera::plan::serving
