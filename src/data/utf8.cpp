#include "data/utf8.h"

#include <algorithm>
#include <cstring>

namespace tessera::data {
namespace {

// What a first byte asks for: length, and the range of the second byte (Unicode standard, table 3-7).
struct Lead {
  size_t length;
  unsigned char low, high;
};

Lead lead_of(unsigned char first) {
  if (first < 0x80) return {1, 0, 0};
  if (first < 0xC2) return {0, 0, 0};
  if (first < 0xE0) return {2, 0x80, 0xBF};
  if (first == 0xE0) return {3, 0xA0, 0xBF};
  if (first == 0xED) return {3, 0x80, 0x9F};
  if (first < 0xF0) return {3, 0x80, 0xBF};
  if (first == 0xF0) return {4, 0x90, 0xBF};
  if (first < 0xF4) return {4, 0x80, 0xBF};
  if (first == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// How many bytes at the start of `text` belong to a character that may be well-formed.
size_t plausible_bytes(std::string_view text, const Lead& lead) {
  size_t have = std::min(lead.length, text.size());
  for (size_t i = 1; i < have; ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    bool good = i == 1 ? byte >= lead.low && byte <= lead.high : (byte & 0xC0) == 0x80;
    if (!good) return i;
  }
  return have;
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  return plausible_bytes(text, lead) == lead.length ? lead.length : 0;
}

bool utf8_is_cut(std::string_view text) {
  if (text.empty()) return false;
  Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  return text.size() < lead.length && plausible_bytes(text, lead) == text.size();
}

size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t eight = 0;
    if (at + 8 <= text.size()) {
      std::memcpy(&eight, text.data() + at, 8);
      if ((eight & 0x8080808080808080u) == 0) {
        at += 8;
        continue;
      }
    }
    size_t length = utf8_length(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return at;
}

char32_t utf8_decode(std::string_view character) {
  auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(character[i])); };
  if (character.size() == 1) return byte(0);
  if (character.size() == 2) return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
  if (character.size() == 3) return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

void utf8_append(std::string& text, char32_t code_point) {
  auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
  }
  put(0x80 | (code_point & 0x3F));
}

std::string utf8_lossy(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    size_t valid = utf8_valid_prefix(bytes);
    text.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    text += "\xEF\xBF\xBD";
    Lead lead = lead_of(static_cast<unsigned char>(bytes[0]));
    bytes.remove_prefix(std::max<size_t>(1, plausible_bytes(bytes, lead)));
  }
  return text;
}

}  // namespace tessera::data
