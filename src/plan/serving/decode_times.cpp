#include "plan/serving/decode_times.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan::serving {

DecodeTimes::DecodeTimes(const StepModel& model, double growth) : model_(model), growth_(growth) {
  auto cache = [&](double context) {
    return model.breakdown({.decode_sequences = 1, .decode_context = context}).cache;
  };
  std::vector<double> bends = model.context_bends();
  for (size_t i = 0; i < bends.size(); ++i) {
    double from = bends[i], to = i + 1 < bends.size() ? bends[i + 1] : from + 1e6;
    pieces_.push_back({from, cache(from) - cache(0), (cache(to) - cache(from)) / (to - from)});
  }
}

// Sums of straight lines: the number of points times the mean of the first and the last.
double DecodeTimes::cache_sum(double context, int64_t steps) const {
  double sum = 0;
  int64_t done = 0;
  for (size_t i = 0; i < pieces_.size() && done < steps; ++i) {
    const Piece& piece = pieces_[i];
    int64_t until = steps;
    if (i + 1 < pieces_.size()) {
      double left = std::ceil((pieces_[i + 1].from - context) / growth_);
      until = std::clamp<int64_t>(static_cast<int64_t>(std::max(left, -1.0)), done, steps);
    }
    auto count = static_cast<double>(until - done);
    double middle = context + growth_ * (static_cast<double>(done) + (count - 1) / 2);
    sum += count * (piece.value + piece.slope * (middle - piece.from));
    done = until;
  }
  return sum;
}

double DecodeTimes::step_without_cache(int64_t sequences) {
  auto at = static_cast<size_t>(sequences);
  if (at >= without_cache_.size()) without_cache_.resize(at + 1, -1);
  if (without_cache_[at] < 0)
    without_cache_[at] = model_.seconds({.decode_sequences = static_cast<double>(sequences)});
  return without_cache_[at];
}

double DecodeTimes::seconds(int64_t sequences, double context, int64_t steps) {
  return static_cast<double>(steps) * step_without_cache(sequences) +
         static_cast<double>(sequences) * cache_sum(context, steps);
}

int64_t DecodeTimes::steps_for(int64_t sequences, double context, double wanted, int64_t most) {
  int64_t low = 0, high = most;  // steps grow longer: the first one's time bounds their number
  double first = seconds(sequences, context, 1);
  if (wanted < first * static_cast<double>(most)) high = static_cast<int64_t>(wanted / first) + 1;
  high = std::min(high, most);
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (seconds(sequences, context, middle) >= wanted)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

}  // namespace tessera::plan::serving
