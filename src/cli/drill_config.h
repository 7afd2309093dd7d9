// examples/moe-small.toml and examples/recsys/synthetic.toml, compiled in: a drill needs no file beside the
// program.
#pragma once

namespace tessera::cli {

extern const char* const kDrillConfig;
extern const char* const kRecsysDrillConfig;

}  // namespace tessera::cli
