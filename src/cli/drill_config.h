// examples/moe-small.toml, compiled in: a drill needs no file beside the program.
#pragma once

namespace tessera::cli {

extern const char* const kDrillConfig;

}  // namespace tessera::cli
