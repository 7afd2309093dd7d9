// SHA-256, for what must not be guessed from its hash. Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

using Sha256 = std::array<uint8_t, 32>;

Sha256 sha256(std::string_view bytes);
std::string hex(const Sha256& digest);                        // 64 lower-case digits
std::optional<Sha256> parse_sha256(std::string_view digits);  // nullopt unless 64 hexadecimal digits
// Takes as long for digests that differ early as for equal ones.
bool equal_in_constant_time(const Sha256& a, const Sha256& b);

}  // namespace tessera
