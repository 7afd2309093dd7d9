// Checks of numbers on the command line. CLI11's own name the largest double where there is no upper limit.
#pragma once

#include <CLI/CLI.hpp>

namespace tessera::cli {

CLI::Validator positive_number();
CLI::Validator non_negative_number();

}  // namespace tessera::cli
