// Claim: a Criteo log is parsed at 400 MB/s or more on one core. Beside it, a plain getline-and-strtol reader
// of the same file, and the count of its lines, which is what reading the file costs at least.
//
//   build/plan-only/bench/recsys_read [--json FILE]
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/machine.h"
#include "recsys_data/criteo.h"
#include "recsys_data/random.h"

namespace tessera::recsys_data {
namespace {

constexpr int64_t kRows = 400000, kRepeats = 5;

// Lengths and shares of empty fields as in Criteo's Kaggle set: about 240 bytes a line.
std::string made_up_log() {
  Random random(1);
  std::string text;
  char field[24];
  for (int64_t row = 0; row < kRows; ++row) {
    text += random.below(4) == 0 ? '1' : '0';
    for (int i = 0; i < 13; ++i) {
      text += '\t';
      if (random.below(8) == 0) continue;
      auto value = static_cast<long>(std::exp(random.uniform() * 9)) - 1;
      text.append(field, static_cast<size_t>(std::snprintf(field, sizeof field, "%ld", value)));
    }
    for (int i = 0; i < 26; ++i) {
      text += '\t';
      if (random.below(9) == 0) continue;
      text.append(field, static_cast<size_t>(
                             std::snprintf(field, sizeof field, "%08x", static_cast<unsigned>(random.bits()))));
    }
    text += '\n';
  }
  return text;
}

template <class Work>
double best_seconds(Work work) {
  double best = 1e9;
  for (int64_t i = 0; i < kRepeats; ++i) {
    auto start = Clock::now();
    work();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

uint64_t parse_ours(const std::filesystem::path& path) {
  auto source = make_criteo_source({{path, {}}});
  Batch batch;
  uint64_t sum = 0;
  (void)source->start_epoch(0).ok();
  for (;;) {
    Status status = source->next(4096, batch);
    TESSERA_REQUIRE(status.ok(), "{}", status.error().message);
    if (batch.rows == 0) return sum;
    sum += batch.slots[25].ids.back();
  }
}

uint64_t parse_plainly(const std::filesystem::path& path) {
  std::ifstream file(path);
  uint64_t sum = 0;
  for (std::string line; std::getline(file, line);) {
    const char* at = line.c_str();
    for (int column = 0; column < 40 && *at != 0; ++column) {
      char* stop = nullptr;
      sum += std::strtoul(at, &stop, column < 14 ? 10 : 16);
      at = *stop == '\t' ? stop + 1 : stop;
    }
  }
  return sum;
}

uint64_t count_lines(const std::filesystem::path& path) {
  auto input = TextInput::open(path);
  uint64_t lines = 0;
  for (;;) {
    auto piece = (*input)->next();
    if (!piece.ok() || piece->empty()) return lines;
    lines += static_cast<uint64_t>(std::count(piece->begin(), piece->end(), '\n'));
  }
}

}  // namespace
}  // namespace tessera::recsys_data

int main(int count, char** words) {
  using namespace tessera::recsys_data;
  bool json = count == 3 && std::strcmp(words[1], "--json") == 0;
  if (count != 1 && !json) return std::fprintf(stderr, "usage: recsys_read [--json FILE]\n"), 2;
  auto path = std::filesystem::temp_directory_path() / ("tessera_recsys_read_" + std::to_string(::getpid()));
  const std::string text = made_up_log();
  std::ofstream(path, std::ios::binary) << text;
  volatile uint64_t keep = 0;
  double megabytes = static_cast<double>(text.size()) / 1e6;
  double ours = megabytes / best_seconds([&] { keep = parse_ours(path); });
  double plain = megabytes / best_seconds([&] { keep = parse_plainly(path); });
  double scan = megabytes / best_seconds([&] { keep = count_lines(path); });
  std::filesystem::remove(path);
  double load[3] = {};
  (void)!::getloadavg(load, 3);
  std::printf("%s, load average %.2f\n", tessera::this_machine().processor.c_str(), load[0]);
  std::printf("criteo: %.0f MB/s (target 400), getline and strtoul %.0f MB/s, counting lines %.0f MB/s\n", ours,
              plain, scan);
  if (!json) return 0;
  auto row = [&](const char* name, const char* peer, double theirs) {
    return nlohmann::json{
        {"name", name},       {"unit", "MB/s"},         {"peer_name", peer},        {"ours", ours},
        {"peer", theirs},     {"ratio", ours / theirs}, {"higher_is_better", true}, {"threads", 1},
        {"repeats", kRepeats}};
  };
  nlohmann::json report = {{"machine", tessera::this_machine().processor},
                           {"load_average", load[0]},
                           {"rows",
                            {row("criteo_parse", "target", 400), row("criteo_parse", "getline-strtoul", plain),
                             row("criteo_parse", "line-count", scan)}}};
  std::ofstream file(words[2]);
  file << report.dump(2) << "\n";
  return file.good() ? 0 : 1;
}
