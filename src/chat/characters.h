// Text as Python sees it: positions and lengths in characters, not bytes.
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::chat {

int64_t num_characters(std::string_view text);
std::vector<std::string> split_characters(std::string_view text);
std::string character_at(std::string_view text, int64_t position);  // REQUIRES: inside
std::u32string decode(std::string_view text);
std::string encode(std::u32string_view characters);

bool is_space(char32_t c);  // str.isspace() of one character
bool is_printable(char32_t c);
bool is_letter(char32_t c);
bool is_digit(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title()

// Takes off white space, or any of `what`.
std::string strip_left(std::string_view text, std::optional<std::string_view> what = {});
std::string strip_right(std::string_view text, std::optional<std::string_view> what = {});

std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t most = -1);
// str.split(): by runs of white space, or at each `separator`; `most` cuts, -1: all.
std::vector<std::string> split(std::string_view text, std::optional<std::string_view> separator, int64_t most);
std::vector<std::string> split_from_right(std::string_view text, std::optional<std::string_view> separator,
                                          int64_t most);
std::string swap_case(std::string_view text);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);

}  // namespace tessera::chat
