// A host whose own server was timed: what `tessera calibrate --serve` writes and `plan serve --cluster` reads.
// Peaks stand for themselves here: the device takes the best rates that were seen, and the constants of the
// engine (engine.h) say what a step of any load loses of them.
//
// Units: seconds, bytes, FLOP/s. Threads: values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "plan/serving/step_time.h"

namespace tessera::plan::serving {

struct ServingHost {
  Accelerator device;
  Engine engine;
  std::map<std::string, std::string> provenance;
};

// Steps that ran one after the other and what they took together: one decode step, or the chunks of one prompt.
struct TimedSteps {
  std::vector<StepLoad> steps;
  double seconds = 0;
};
StepLoad decode_load(double sequences, double context);
// A whole prompt beside sequences that decode.
StepLoad mixed_load(double sequences, double context, int64_t prompt);
// A prompt that is computed alone, `chunk` tokens at a time.
std::vector<StepLoad> prompt_loads(int64_t tokens, int64_t chunk);

struct HostFit {
  ServingHost host;
  std::vector<double> predicted_s;       // of what was timed, in its order
  double mean_error = 0, max_error = 0;  // |predicted / timed - 1| over what was timed
};
// `start`: model, formats, layout, and of device and engine all that is not timed (memory, limits of the
// scheduler). Rates, efficiencies and overheads come from `timed`, by coordinate search on the mean squared
// logarithm of predicted over timed. Errors: nothing to fit on.
Result<HostFit> fit_host(const Deployment& start, const std::vector<TimedSteps>& timed);

std::string to_toml(const ServingHost& host);
Result<ServingHost> parse_serving_host(const std::string& text, const std::string& name);
// The path of a file that holds one.
bool is_serving_host(const std::string& path);
Result<ServingHost> load_serving_host(const std::string& path);

}  // namespace tessera::plan::serving
