// UTF-8, checked strictly: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::data {

// Bytes of the well-formed character at the start of `text` (1 to 4), or 0 when it is malformed, cut or empty.
size_t utf8_length(std::string_view text);

// True when more bytes could still complete the character that `text` (1 to 3 bytes) begins.
bool utf8_is_cut(std::string_view text);

// Offset of the first byte that is no UTF-8; text.size() when all is well.
size_t utf8_valid_prefix(std::string_view text);

// The code point of a well-formed character, and the character of a code point.
char32_t utf8_decode(std::string_view character);
void utf8_append(std::string& text, char32_t code_point);

// Malformed parts replaced by U+FFFD, as browsers and Python's errors="replace" do.
std::string utf8_lossy(std::string_view bytes);

}  // namespace tessera::data
