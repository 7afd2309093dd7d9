// Runs an embedding group's optimizer on given gradients, for comparison with torch.
//
//   embedding_probe ROWS DIM STEPS IN OUT [key=value ...]
//
// IN: float32 values [ROWS, DIM], then gradients [STEPS, ROWS, DIM]. OUT: the values after all steps.
// Keys: optimizer, row_type, learning_rate, weight_decay, epsilon, momentum, nesterov, initial_accumulator,
// accumulate_after, beta1, beta2, ftrl_beta, l1, l2, stochastic.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include "core/file.h"
#include "recsys/store.h"

namespace tessera::recsys {
namespace {

Status assign(GroupOptions& group, const std::string& key, const std::string& value) {
  OptimizerOptions& o = group.optimizer;
  std::map<std::string, double*> numbers = {{"learning_rate", &o.learning_rate},
                                            {"weight_decay", &o.weight_decay},
                                            {"epsilon", &o.epsilon},
                                            {"momentum", &o.momentum},
                                            {"beta1", &o.beta1},
                                            {"beta2", &o.beta2},
                                            {"ftrl_beta", &o.ftrl_beta},
                                            {"l1", &o.l1},
                                            {"l2", &o.l2},
                                            {"initial_accumulator", &o.initial_accumulator}};
  std::map<std::string, bool*> switches = {{"nesterov", &o.nesterov},
                                           {"accumulate_after", &o.accumulate_after},
                                           {"stochastic", &group.stochastic_rounding}};
  if (numbers.contains(key)) {
    *numbers[key] = std::atof(value.c_str());
  } else if (switches.contains(key)) {
    *switches[key] = value == "1";
  } else if (key == "optimizer") {
    TESSERA_ASSIGN_OR_RETURN(o.kind, parse_optimizer(value));
  } else if (key == "row_type") {
    TESSERA_ASSIGN_OR_RETURN(group.row_type, parse_row_type(value));
  } else {
    return invalid("unknown key {}", key);
  }
  return {};
}

Status run(int count, char** words) {
  if (count < 6) return invalid("usage: embedding_probe ROWS DIM STEPS IN OUT [key=value ...]");
  size_t rows = std::strtoull(words[1], nullptr, 10), steps = std::strtoull(words[3], nullptr, 10);
  GroupOptions group{.dim = std::atoll(words[2])};
  for (int i = 6; i < count; ++i) {
    std::string word = words[i];
    size_t equals = word.find('=');
    TESSERA_RETURN_IF_ERROR(assign(group, word.substr(0, equals), word.substr(equals + 1)));
  }
  TESSERA_ASSIGN_OR_RETURN(auto text, read_file(words[4]));
  size_t floats = rows * static_cast<size_t>(group.dim);
  if (text.size() != (steps + 1) * floats * sizeof(float))
    return invalid("{} has {} bytes", words[4], text.size());
  std::span<const float> input(reinterpret_cast<const float*>(text.data()), (steps + 1) * floats);
  TESSERA_ASSIGN_OR_RETURN(auto store, Store::create({.groups = {group}}));
  std::vector<uint64_t> ids(rows);
  for (size_t i = 0; i < rows; ++i) ids[i] = i;
  TESSERA_RETURN_IF_ERROR(store->assign(0, ids, input.first(floats)));
  for (size_t step = 1; step <= steps; ++step) {
    auto done = store->put(0, ids, input.subspan(step * floats, floats), {.step = step});
    if (!done) return done.error();
  }
  std::vector<float> values(floats);
  TESSERA_RETURN_IF_ERROR(store->get(0, ids, values, Access::read));
  return write_file_atomically(words[5],
                               {reinterpret_cast<const char*>(values.data()), floats * sizeof(float)});
}

}  // namespace
}  // namespace tessera::recsys

int main(int count, char** words) {
  tessera::Status status = tessera::recsys::run(count, words);
  if (!status) std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
