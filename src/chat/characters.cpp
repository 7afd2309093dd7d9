#include "chat/characters.h"

#include <utf8proc.h>

#include <algorithm>

#include "data/utf8.h"

namespace tessera::chat {

namespace {

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}
char32_t to_upper(char32_t c) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}
char32_t to_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}
bool is_cased(char32_t c) {
  return is_upper(c) || is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT;
}

bool is_line_end(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

// Simple case mapping, but for the one letter that everybody meets and that has none.
std::u32string upper_of(std::u32string_view text) {
  std::u32string out;
  for (char32_t c : text) c == U'ß' ? out += U"SS" : out += to_upper(c);
  return out;
}

bool is_stripped(char32_t c, const std::optional<std::u32string>& what) {
  return what ? what->find(c) != std::u32string::npos : is_space(c);
}
std::optional<std::u32string> decoded(std::optional<std::string_view> what) {
  return what ? std::optional(decode(*what)) : std::nullopt;
}

// Ends of the words of `text`: [first, last) in characters.
std::vector<std::pair<size_t, size_t>> words(const std::u32string& text) {
  std::vector<std::pair<size_t, size_t>> out;
  for (size_t i = 0; i < text.size();) {
    size_t begin = i;
    while (i < text.size() && !is_space(text[i])) ++i;
    if (i > begin) out.emplace_back(begin, i);
    while (i < text.size() && is_space(text[i])) ++i;
  }
  return out;
}

std::vector<std::string> split_words(std::string_view bytes, int64_t most, bool from_right) {
  std::u32string text = decode(bytes);
  auto parts = words(text);
  auto count = static_cast<int64_t>(parts.size());
  std::vector<std::string> out;
  int64_t singles = most < 0 ? count : std::min(most, count);
  auto part = [&](size_t begin, size_t end) {
    return encode(std::u32string_view(text).substr(begin, end - begin));
  };
  auto at = [&](int64_t i) { return parts[static_cast<size_t>(i)]; };
  int64_t first = from_right ? count - singles : 0;
  if (from_right && first > 0) out.push_back(part(0, at(first - 1).second));
  for (int64_t i = first; i < first + singles; ++i) out.push_back(part(at(i).first, at(i).second));
  if (!from_right && singles < count) out.push_back(strip_left(part(at(singles).first, text.size())));
  return out;
}

}  // namespace

std::u32string decode(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  while (!text.empty()) {
    size_t length = data::utf8_length(text);
    out += length ? data::utf8_decode(text.substr(0, length)) : U'\uFFFD';
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string encode(std::u32string_view characters) {
  std::string out;
  for (char32_t c : characters) data::utf8_append(out, c);
  return out;
}

int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::string character_at(std::string_view text, int64_t position) {
  size_t at = 0;
  auto skip = [&] {
    do ++at;
    while (at < text.size() && (text[at] & 0xC0) == 0x80);
  };
  while (position-- > 0) skip();
  size_t begin = at;
  skip();
  return std::string(text.substr(begin, at - begin));
}

std::vector<std::string> split_characters(std::string_view text) {
  std::vector<std::string> out;
  for (char32_t c : decode(text)) out.push_back(encode({&c, 1}));
  return out;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}
bool is_printable(char32_t c) {
  if (c == U' ') return true;
  auto kind = category(c);
  return kind != UTF8PROC_CATEGORY_CN && kind < UTF8PROC_CATEGORY_ZS;
}
bool is_letter(char32_t c) {
  auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}
bool is_digit(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_ND;
}
bool is_upper(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LU;
}
bool is_lower(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LL;
}

std::string upper(std::string_view text) {
  return encode(upper_of(decode(text)));
}
std::string lower(std::string_view text) {
  std::u32string out = decode(text);
  for (char32_t& c : out) c = to_lower(c);
  return encode(out);
}
std::string capitalize(std::string_view text) {
  std::u32string all = decode(text);
  if (all.empty()) return {};
  std::string rest = lower(encode(std::u32string_view(all).substr(1)));
  return (all[0] == U'ß' ? std::string("Ss") : encode(upper_of(all.substr(0, 1)))) + rest;
}
std::string title(std::string_view text) {
  std::u32string out = decode(text);
  bool inside = false;
  for (char32_t& c : out) {
    bool cased = is_cased(c);
    c = inside ? to_lower(c) : to_upper(c);
    inside = cased;
  }
  return encode(out);
}

std::string swap_case(std::string_view text) {
  std::u32string out = decode(text);
  for (char32_t& c : out) c = is_upper(c) ? to_lower(c) : to_upper(c);
  return encode(out);
}

std::string strip_left(std::string_view text, std::optional<std::string_view> what) {
  std::u32string all = decode(text);
  auto set = decoded(what);
  size_t begin = 0;
  while (begin < all.size() && is_stripped(all[begin], set)) ++begin;
  return encode(std::u32string_view(all).substr(begin));
}
std::string strip_right(std::string_view text, std::optional<std::string_view> what) {
  std::u32string all = decode(text);
  auto set = decoded(what);
  while (!all.empty() && is_stripped(all.back(), set)) all.pop_back();
  return encode(all);
}

std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t most) {
  std::string out;
  if (old.empty()) {  // between all characters and at both ends
    int64_t done = 0;
    for (const std::string& c : split_characters(text)) {
      if (most < 0 || done++ < most) out += by;
      out += c;
    }
    return most < 0 || done < most ? out + std::string(by) : out;
  }
  for (int64_t done = 0; most < 0 || done < most; ++done) {
    size_t at = text.find(old);
    if (at == std::string_view::npos) break;
    out.append(text.substr(0, at)).append(by);
    text.remove_prefix(at + old.size());
  }
  return out.append(text);
}

std::vector<std::string> split(std::string_view text, std::optional<std::string_view> separator, int64_t most) {
  if (!separator) return split_words(text, most, false);
  std::vector<std::string> out;
  size_t at;
  while ((most < 0 || std::ssize(out) < most) && (at = text.find(*separator)) != std::string_view::npos) {
    out.emplace_back(text.substr(0, at));
    text.remove_prefix(at + separator->size());
  }
  out.emplace_back(text);
  return out;
}

std::vector<std::string> split_from_right(std::string_view text, std::optional<std::string_view> separator,
                                          int64_t most) {
  if (!separator) return split_words(text, most, true);
  std::vector<std::string> out;
  size_t at;
  while ((most < 0 || std::ssize(out) < most) && (at = text.rfind(*separator)) != std::string_view::npos) {
    out.emplace_back(text.substr(at + separator->size()));
    text = text.substr(0, at);
  }
  out.emplace_back(text);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> split_lines(std::string_view bytes, bool keep_ends) {
  std::u32string text = decode(bytes);
  std::vector<std::string> out;
  for (size_t i = 0; i < text.size();) {
    size_t begin = i;
    while (i < text.size() && !is_line_end(text[i])) ++i;
    size_t end = i;
    if (i < text.size()) i += text[i] == U'\r' && i + 1 < text.size() && text[i + 1] == U'\n' ? 2 : 1;
    out.push_back(encode(std::u32string_view(text).substr(begin, (keep_ends ? i : end) - begin)));
  }
  return out;
}

}  // namespace tessera::chat
