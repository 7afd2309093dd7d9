#include "data/byte_level.h"

#include <array>
#include <cstdint>

#include "data/utf8.h"

namespace tessera::data {
namespace {

constexpr int kFirstStandIn = 0x100;
constexpr int kTableSize = kFirstStandIn + 256;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int, kTableSize> byte{};  // -1: no byte
  Alphabet() {
    byte.fill(-1);
    int next = kFirstStandIn;
    for (int value = 0; value < 256; ++value) {
      int code = stands_for_itself(value) ? value : next++;
      character[static_cast<size_t>(value)] = static_cast<char32_t>(code);
      byte[static_cast<size_t>(code)] = value;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string visible_of_bytes(std::string_view bytes) {
  std::string visible;
  for (char byte : bytes) utf8_append(visible, alphabet().character[static_cast<unsigned char>(byte)]);
  return visible;
}

std::optional<std::string> bytes_of_visible(std::string_view visible) {
  std::string bytes;
  while (!visible.empty()) {
    size_t length = utf8_length(visible);
    if (length == 0) return std::nullopt;
    char32_t code = utf8_decode(visible.substr(0, length));
    if (code >= kTableSize || alphabet().byte[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet().byte[code]));
    visible.remove_prefix(length);
  }
  return bytes;
}

}  // namespace tessera::data
