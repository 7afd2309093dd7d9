// XXH3 hashes of bytes, as 16 or 32 hexadecimal digits in files and messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tessera {

uint64_t hash64(std::span<const std::byte> bytes, uint64_t seed = 0);
std::string hex(uint64_t value);

}  // namespace tessera
