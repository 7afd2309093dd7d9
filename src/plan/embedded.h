// The files of src/plan/data, compiled in so that the planner is one binary: figures and model shapes stay data
// with their source beside them.
#pragma once

#include <string>
#include <vector>

namespace tessera::plan {

struct EmbeddedFile {
  std::string path;  // "clusters/h100.toml"
  std::string text;
};
const std::vector<EmbeddedFile>& embedded_files();

}  // namespace tessera::plan
