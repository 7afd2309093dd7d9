#include "grammar/regex_syntax.h"

#include <fmt/format.h>

#include <string>

#include "chat/characters.h"

namespace tessera::grammar {

namespace {

constexpr int kMaxNesting = 100;
constexpr int64_t kMaxRepeats = 1000;

// What every dialect takes, and what some dialect takes.
struct Class {
  CharSet narrow, wide;
  Class complement() const { return {wide.complement(), narrow.complement()}; }
  void add(const Class& other) {
    narrow.add(other.narrow);
    wide.add(other.wide);
  }
};
Class exactly(const CharSet& set) {
  return {set, set};
}

// ASCII for certain; beyond it the dialects differ.
Class with_doubt(CharSet set, const CharSet& doubt) {
  Class out = exactly(set);
  out.wide.add(doubt);
  return out;
}
const CharSet kBeyondAscii = {{0x80, 0xD7FF}, {0xE000, 0x10FFFF}};
const CharSet kOtherSpaces = {{0x1C, 0x1F},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
                              {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                              {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CharSet kLineEnds = {{'\n', '\n'}}, kAllLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class RegexParser {
 public:
  RegexParser(std::string_view regex, RegexReading reading)
      : text_(chat::decode(regex)), is_wide_(reading == RegexReading::wide) {}

  RegexNode parse() {
    RegexNode out = alternatives();
    if (at_ < text_.size()) refuse("')' without '('");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw AutomatonError(fmt::format("regular expression at character {}: {}", at_, what));
  }
  bool ends() const { return at_ >= text_.size(); }
  bool next_is(char32_t c) const { return !ends() && text_[at_] == c; }
  bool take(char32_t c) {
    if (!next_is(c)) return false;
    ++at_;
    return true;
  }
  char32_t take_any(const char* what) {
    if (ends()) refuse(fmt::format("it ends inside of {}", what));
    return text_[at_++];
  }
  RegexNode node_of(const Class& chosen) const {
    return {.kind = RegexNode::characters, .set = is_wide_ ? chosen.wide : chosen.narrow};
  }
  static RegexNode node_of(char32_t c) { return {.kind = RegexNode::characters, .set = CharSet{{c, c}}}; }

  RegexNode alternatives() {
    if (++depth_ > kMaxNesting) refuse(fmt::format("groups nested deeper than {}", kMaxNesting));
    RegexNode out{.kind = RegexNode::alternatives};
    do out.parts.push_back(sequence());
    while (take('|'));
    --depth_;
    return out.parts.size() == 1 ? std::move(out.parts[0]) : out;
  }

  RegexNode sequence() {
    RegexNode out{.kind = RegexNode::sequence};
    while (!ends() && !next_is('|') && !next_is(')')) out.parts.push_back(quantified());
    return out;
  }

  RegexNode quantified() {
    RegexNode node = atom();
    int64_t least = 0, most = -1;
    if (!take_quantifier(least, most)) return node;
    if (node.kind == RegexNode::begin || node.kind == RegexNode::end) refuse("nothing to repeat");
    if (next_is('+')) refuse("possessive quantifiers are not supported");
    take('?');  // lazy: the same texts
    int64_t ignored = 0;
    if (take_quantifier(ignored, ignored)) refuse("several quantifiers in a row");
    RegexNode out{.kind = RegexNode::repeat, .set = {}, .parts = {}, .least = least, .most = most};
    out.parts.push_back(std::move(node));
    return out;
  }

  bool take_quantifier(int64_t& least, int64_t& most) {
    least = 0;
    most = -1;
    if (take('*')) return true;
    if (take('+')) return least = 1, true;
    if (take('?')) return most = 1, true;
    return take_counts(least, most);
  }

  // {m}, {m,} and {m,n}; other braces are characters.
  bool take_counts(int64_t& least, int64_t& most) {
    size_t begin = at_;
    auto number = [&]() -> int64_t {
      if (ends() || text_[at_] < '0' || text_[at_] > '9') return -1;
      int64_t value = 0;
      while (!ends() && text_[at_] >= '0' && text_[at_] <= '9') {
        value = value * 10 + (text_[at_++] - '0');
        if (value > kMaxRepeats) refuse(fmt::format("more than {} repetitions", kMaxRepeats));
      }
      return value;
    };
    if (take('{')) {
      least = number();
      most = least;
      if (least >= 0 && take(',')) most = number();
      if (least >= 0 && take('}')) {
        if (most >= 0 && most < least) refuse("more repetitions at least than at most");
        return true;
      }
    }
    at_ = begin;
    return false;
  }

  RegexNode atom() {
    char32_t c = take_any("the expression");
    switch (c) {
      case '(':
        return group();
      case '[':
        return node_of(char_class());
      case '.':
        return node_of(Class{kAllLineEnds.complement(), kLineEnds.complement()});
      case '^':
        return {.kind = RegexNode::begin};
      case '$':
        return {.kind = RegexNode::end};
      case '\\':
        return node_of(escape(false));
      case '*':
      case '+':
      case '?':
        refuse("nothing to repeat");
      default:
        return node_of(c);
    }
  }

  RegexNode group() {
    if (take('?') && !take(':')) {
      bool named = take('P');
      bool opens = take('<') && !next_is('=') && !next_is('!');
      if (!opens)
        refuse(named ? "group references are not supported" : "look-around and flags are not supported");
      while (take_any("a group's name") != '>') {
      }
    }
    RegexNode out = alternatives();
    if (!take(')')) refuse("'(' without ')'");
    return out;
  }

  Class char_class() {
    bool negated = take('^');
    Class out;
    for (bool first = true; first || !next_is(']'); first = false) {
      if (first && next_is(']')) refuse("an empty class is not supported");
      Class item = class_item();
      bool is_range = next_is('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (is_range) {
        ++at_;
        item = range_of(item, class_item());
      }
      out.add(item);
    }
    ++at_;
    return negated ? out.complement() : out;
  }

  Class class_item() {
    char32_t c = take_any("a class");
    if (c == '[' && (next_is(':') || next_is('.') || next_is('='))) refuse("named classes are not supported");
    return c == '\\' ? escape(true) : exactly({{c, c}});
  }

  Class range_of(const Class& first, const Class& last) {
    auto single = [&](const Class& item) {
      const auto& ranges = item.wide.ranges();
      if (ranges.size() != 1 || ranges[0].first != ranges[0].last) refuse("a range of a class of characters");
      return ranges[0].first;
    };
    uint32_t from = single(first), to = single(last);
    if (from > to) refuse("a range whose end is in front of its beginning");
    CharSet set = {{from, to}};
    return exactly(set.complement().complement());  // without halves of pairs
  }

  Class escape(bool in_class) {
    char32_t c = take_any("an escape");
    switch (c) {
      case 'd':
        return with_doubt({{'0', '9'}}, kBeyondAscii);
      case 'w':
        return with_doubt({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, kBeyondAscii);
      case 's':
        return with_doubt({{'\t', '\r'}, {' ', ' '}}, kOtherSpaces);
      case 'D':
        return with_doubt({{'0', '9'}}, kBeyondAscii).complement();
      case 'W':
        return with_doubt({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, kBeyondAscii).complement();
      case 'S':
        return with_doubt({{'\t', '\r'}, {' ', ' '}}, kOtherSpaces).complement();
      case 't':
        return exactly({{'\t', '\t'}});
      case 'n':
        return exactly({{'\n', '\n'}});
      case 'r':
        return exactly({{'\r', '\r'}});
      case 'f':
        return exactly({{'\f', '\f'}});
      case 'v':
        return exactly({{'\v', '\v'}});
      case 'x':
        return code_point(2);
      case 'u':
        return code_point(4);
      default:
        break;
    }
    bool is_sign = c < 0x80 && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z');
    if (!is_sign)
      refuse(fmt::format("'\\{}'{} is not supported", chat::encode(std::u32string(1, c)),
                         in_class ? " in a class" : ""));
    return exactly({{c, c}});
  }

  Class code_point(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      char32_t c = take_any("an escape");
      bool is_digit = c >= '0' && c <= '9', is_letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'f';
      if (!is_digit && !is_letter) refuse(fmt::format("an escape needs {} hexadecimal digits", digits));
      value = value * 16 + (is_digit ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (value >= 0xD800 && value <= 0xDFFF)
      refuse("halves of surrogate pairs are not supported; write the character");
    return exactly({{value, value}});
  }

  std::u32string text_;
  bool is_wide_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

RegexNode parse_regex(std::string_view regex, RegexReading reading) {
  return RegexParser(regex, reading).parse();
}

}  // namespace tessera::grammar
