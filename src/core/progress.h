// What a long operation tells its user: how far, how fast, how long still. On a terminal a bar redrawn in
// place; elsewhere (a log file, a pipe) plain lines every few seconds. Color only on a terminal without
// NO_COLOR. Written to standard error, so standard output stays free for results.
//
//   Progress progress({.label = "pack", .unit = "B", .total = bytes});
//   progress.update(done_bytes);
//   progress.finish();
//
// Threads: any; update() is cheap between two drawings.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>

#include "core/clock.h"

namespace tessera {

// 1234567 -> "1.23 M"; with unit "B": "1.23 MB".
std::string human_count(double value, std::string_view unit = "");
// 75.2 -> "1:15"; 3725 -> "1:02:05"; 0.52 -> "0.5 s".
std::string human_duration(double seconds);

class Progress {
 public:
  struct Options {
    std::string label;
    std::string unit;             // of `done` and `total`: "B", "tokens", "steps"
    int64_t total = 0;            // 0: unknown
    double line_interval_s = 5;   // between plain lines
    std::FILE* output = nullptr;  // nullptr: standard error
  };
  explicit Progress(Options options);
  ~Progress();  // ends the bar's line when finish() was not reached

  // `note` follows the figures: "loss 4.21".
  void update(int64_t done, std::string_view note = {});
  // Draws the final state with the mean rate and the time taken. Later updates are ignored.
  void finish(std::string_view note = {});
  double seconds() const { return seconds_since(start_); }

 private:
  std::string figures(int64_t done, bool final) const;
  std::string bar(int64_t done) const;
  void draw(std::string_view text);

  Options options_;
  bool terminal_ = false;
  bool color_ = false;
  Clock::time_point start_ = Clock::now();
  std::atomic<int64_t> next_draw_us_{0};
  std::mutex mutex_;
  bool finished_ = false;
  bool line_open_ = false;
};

}  // namespace tessera
