// What the drills share: where their files go, and how their report is given.
#pragma once

#include <filesystem>

#include "resilience/drill.h"

namespace CLI {
class App;
}

namespace tessera::cli {

// `kept`, or when it is empty a folder of its own in the temporary directory, removed at the end.
class DrillFolder {
 public:
  explicit DrillFolder(const std::string& kept);
  DrillFolder(const DrillFolder&) = delete;
  DrillFolder& operator=(const DrillFolder&) = delete;
  ~DrillFolder();
  std::filesystem::path path;

 private:
  bool temporary_;
};

// The table, and JSON to `json` where given; the exit status says whether all went well.
Status print_drill(const resilience::DrillReport& report, const std::string& json);

void add_drill_recsys(CLI::App& drill);  // part of `drill`

}  // namespace tessera::cli
