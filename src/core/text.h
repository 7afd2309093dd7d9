// Small transformations of text.
#pragma once

#include <string>

namespace tessera {

// Letters A to Z in lower case; every other byte as it is, in whatever locale.
std::string lower_ascii(std::string text);

}  // namespace tessera
