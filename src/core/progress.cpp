#include "core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

namespace tessera {
namespace {

constexpr int kBarCells = 24;
constexpr double kRedrawSeconds = 0.1;

bool is_dumb_terminal() {
  const char* term = std::getenv("TERM");
  return term == nullptr || std::string_view(term) == "dumb";
}

bool color_is_refused() {
  const char* value = std::getenv("NO_COLOR");
  return value != nullptr && *value != '\0';
}

int terminal_columns(int descriptor) {
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string human_count(double value, std::string_view unit) {
  constexpr std::array<const char*, 6> kPrefixes = {"", "k", "M", "G", "T", "P"};
  size_t prefix = 0;
  while (std::abs(value) >= 999.5 && prefix + 1 < kPrefixes.size()) {
    value /= 1000;
    ++prefix;
  }
  std::string number;
  if (value == std::floor(value) && prefix == 0) {
    number = fmt::format("{:.0f}", value);
  } else {
    double magnitude = std::abs(value);
    number = fmt::format("{:.{}f}", value, magnitude < 9.995 ? 2 : magnitude < 99.95 ? 1 : 0);
  }
  if (unit == "B") return fmt::format("{} {}B", number, kPrefixes[prefix]);
  std::string text = prefix == 0 ? number : fmt::format("{} {}", number, kPrefixes[prefix]);
  return unit.empty() ? text : fmt::format("{} {}", text, unit);
}

std::string human_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  auto whole = static_cast<int64_t>(std::llround(seconds));
  int64_t hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return fmt::format("{}:{:02}", minutes, rest);
}

Progress::Progress(Options options) : options_(std::move(options)) {
  if (options_.output == nullptr) options_.output = stderr;
  terminal_ = ::isatty(::fileno(options_.output)) == 1 && !is_dumb_terminal();
  color_ = terminal_ && !color_is_refused();
  // A plain line at once would say 0 %; the first comes after an interval.
  if (!terminal_) next_draw_us_ = static_cast<int64_t>(options_.line_interval_s * 1e6);
}

Progress::~Progress() {
  if (line_open_) std::fputc('\n', options_.output);
}

void Progress::update(int64_t done, std::string_view note) {
  auto now_us = static_cast<int64_t>(seconds() * 1e6);
  if (now_us < next_draw_us_.load(std::memory_order_relaxed)) return;
  std::lock_guard lock(mutex_);
  if (finished_ || now_us < next_draw_us_) return;
  double interval = terminal_ ? kRedrawSeconds : options_.line_interval_s;
  next_draw_us_ = now_us + static_cast<int64_t>(interval * 1e6);
  std::string text = fmt::format("{}{}", terminal_ ? bar(done) : "", figures(done, false));
  draw(note.empty() ? text : fmt::format("{}, {}", text, note));
}

void Progress::finish(std::string_view note) {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  std::string text = figures(options_.total, true);
  draw(note.empty() ? text : fmt::format("{}, {}", text, note));
  if (terminal_) std::fputc('\n', options_.output);
  line_open_ = false;
}

std::string Progress::figures(int64_t done, bool final) const {
  double elapsed = std::max(seconds(), 1e-6);
  double rate = static_cast<double>(done) / elapsed;
  std::string speed = human_count(rate, options_.unit) + "/s";
  if (final && options_.total == 0) return fmt::format("done in {}", human_duration(elapsed));
  if (final)
    return fmt::format("{} in {}, {}", human_count(static_cast<double>(done), options_.unit),
                       human_duration(elapsed), speed);
  if (options_.total == 0)
    return fmt::format("{}, {}", human_count(static_cast<double>(done), options_.unit), speed);
  double left = rate > 0 ? static_cast<double>(options_.total - done) / rate : -1;
  return fmt::format("{:3.0f} %, {}, {} left",
                     100.0 * static_cast<double>(done) / static_cast<double>(options_.total), speed,
                     human_duration(std::max(left, rate > 0 ? 0.0 : -1.0)));
}

std::string Progress::bar(int64_t done) const {
  if (options_.total == 0) return "";
  double share = std::clamp(static_cast<double>(done) / static_cast<double>(options_.total), 0.0, 1.0);
  auto full = static_cast<size_t>(share * kBarCells);
  return fmt::format("[{}{}] ", std::string(full, '#'), std::string(kBarCells - full, '.'));
}

void Progress::draw(std::string_view text) {
  std::string line = fmt::format("{}: {}", options_.label, text);
  if (!terminal_) {
    std::fprintf(options_.output, "%s\n", line.c_str());
    std::fflush(options_.output);
    return;
  }
  // A line longer than the terminal would wrap and the next drawing would not cover it.
  line.resize(std::min(line.size(), static_cast<size_t>(terminal_columns(::fileno(options_.output)) - 1)));
  if (color_ && line.size() > options_.label.size())
    line = fmt::format("\x1b[1m{}\x1b[0m{}", options_.label, line.substr(options_.label.size()));
  std::fprintf(options_.output, "\r\x1b[K%s", line.c_str());
  std::fflush(options_.output);
  line_open_ = true;
}

}  // namespace tessera
