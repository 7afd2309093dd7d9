// The texts of JSON schema's `format`. Threads: any.
#pragma once

#include <optional>
#include <string>

namespace tessera::grammar {

// A regular expression of texts that are of this format for every checker; there may be others. Nothing for
// formats that are not known, which restrict nothing.
std::optional<std::string> regex_of_format(const std::string& format);

}  // namespace tessera::grammar
