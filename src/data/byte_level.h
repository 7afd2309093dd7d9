// GPT-2's alphabet: every byte is written as one visible character, so that vocabularies are text. Printable
// Latin-1 bytes stand for themselves, the others for U+0100 and on, in order of the byte.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tessera::data {

// The pattern GPT-2 cuts words with.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string visible_of_bytes(std::string_view bytes);

// Nothing when a character stands for no byte.
std::optional<std::string> bytes_of_visible(std::string_view visible);

}  // namespace tessera::data
