// What `tessera launch` asks of `tessera train` before it starts workers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::cli {

// Whether `train WORDS...` could start on this many workers: configuration, layout and data are sound. One
// error here spares the same error from every worker.
Status check_train_command(const std::vector<std::string>& words, int64_t workers);

}  // namespace tessera::cli
