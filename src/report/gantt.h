// Intervals in rows against time, as SVG: what each rank did, or how the steps of a run follow each other.
#pragma once

#include <string>
#include <vector>

namespace tessera::report {

struct Gantt {
  struct Bar {
    size_t row = 0;
    double begin_s = 0, end_s = 0;
    size_t kind = 0;   // index of `kinds`: its colour
    std::string note;  // shown by the pointer
  };
  struct Mark {
    double at_s = 0;
    std::string label;
  };
  std::vector<std::string> rows, kinds;
  std::vector<Bar> bars;
  std::vector<Mark> marks;
};

std::string gantt_html(const Gantt& gantt);

}  // namespace tessera::report
