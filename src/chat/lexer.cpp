#include "chat/lexer.h"

#include <fmt/format.h>

#include <algorithm>

#include "chat/characters.h"
#include "chat/value.h"
#include "data/utf8.h"

namespace tessera::chat {

namespace {

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}
bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}

// One kind of line end, and none at the very end.
std::string normalized(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    bool pair = source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n';
    if (!pair) out += source[i] == '\r' ? '\n' : source[i];
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) next_part();
    add(Token::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw TemplateError(fmt::format("line {}: {}", line_, what));
  }
  bool looking_at(std::string_view text) const { return source_.compare(at_, text.size(), text) == 0; }
  void add(Token::Kind kind, std::string value) { tokens_.push_back({kind, std::move(value), line_}); }
  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + at_ + bytes, '\n'));
    at_ += bytes;
  }
  void skip_space() {
    while (at_ < source_.size()) {
      auto rest = std::string_view(source_).substr(at_);
      size_t length = std::max<size_t>(data::utf8_length(rest), 1);
      char32_t c =
          length == 1 ? static_cast<unsigned char>(rest[0]) : data::utf8_decode(rest.substr(0, length));
      if (!is_space(c)) return;
      advance(length);
    }
  }

  // Text up to the next tag, then the tag.
  void next_part() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos ||
          (tag + 1 < source_.size() &&
           std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos))
        break;
      ++tag;
    }
    if (tag == std::string::npos) return add_text(source_.size(), ' ', false);
    char kind = source_[tag + 1], sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (sign != '-' && sign != '+') sign = ' ';
    add_text(tag, sign, kind != '{');
    advance(sign == ' ' ? 2 : 3);
    if (kind == '#') return comment();
    if (kind == '{') return expression(Token::print_begin, Token::print_end, "}}");
    if (!raw_block()) expression(Token::block_begin, Token::block_end, "%}");
  }

  // Adds the text in front of a tag, without what the tag takes away.
  void add_text(size_t end, char sign, bool strips_line) {
    std::string text = source_.substr(at_, end - at_);
    if (sign == '-') text = strip_right(text);
    if (sign == ' ' && strips_line) strip_line_start(text);
    if (!text.empty()) add(Token::text, text);
    advance(end - at_);
  }

  void strip_line_start(std::string& text) const {
    size_t line_start = text.rfind('\n') + 1;  // 0 when there is none
    bool starts_line = at_ == 0 || source_[at_ - 1] == '\n';
    if (line_start == 0 && !starts_line) return;
    if (strip_left(std::string_view(text).substr(line_start)).empty()) text.resize(line_start);
  }

  // After a closing delimiter: `sign` is the character in front of it.
  void after_block(char sign) {
    if (sign == '-') return skip_space();
    if (sign != '+' && looking_at("\n")) advance(1);
  }

  void comment() {
    size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("a comment is not closed by '#}'");
    char sign = end > at_ ? source_[end - 1] : ' ';
    advance(end + 2 - at_);
    after_block(sign);
  }

  // After "{%": "raw %}", text, "{% endraw %}". False, and nothing read, when it is another block.
  bool raw_block() {
    size_t begin = at_;
    int line = line_;
    skip_space();
    bool is_raw = looking_at("raw");
    if (is_raw) {
      advance(3);
      skip_space();
      is_raw = looking_at("%}") || looking_at("-%}");
    }
    if (!is_raw) {
      at_ = begin;
      line_ = line;
      return false;
    }
    bool strips = looking_at("-");
    advance(strips ? 3 : 2);
    if (strips) skip_space();
    raw_text();
    return true;
  }

  void raw_text() {
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      size_t inside = tag + 2;
      char sign = source_[inside];
      if (sign == '-' || sign == '+')
        ++inside;
      else
        sign = ' ';
      std::string rest =
          strip_left(std::string_view(source_).substr(inside, source_.find("%}", inside) - inside));
      char closing = !rest.empty() && (rest.back() == '-' || rest.back() == '+') ? rest.back() : ' ';
      if (closing != ' ') rest.pop_back();
      if (strip_right(rest) != "endraw") continue;
      add_text(tag, sign, true);
      advance(source_.find("%}", at_) + 2 - at_);
      return after_block(closing);
    }
    fail("a raw block is not closed by '{% endraw %}'");
  }

  void expression(Token::Kind begin, Token::Kind end, std::string_view closing) {
    add(begin, "");
    int first_line = line_;
    std::string brackets;
    while (true) {
      skip_space();
      if (at_ >= source_.size()) {
        line_ = first_line;
        fail(fmt::format("a tag is not closed by '{}'", closing));
      }
      char sign = source_[at_] == '-' || source_[at_] == '+' ? source_[at_] : ' ';
      size_t skipped = sign == ' ' ? 0 : 1;
      bool signed_end = sign == '-' || (sign == '+' && end == Token::block_end);
      if (brackets.empty() && source_.compare(at_ + skipped, 2, closing) == 0 && (sign == ' ' || signed_end)) {
        add(end, "");
        advance(skipped + 2);
        if (end == Token::block_end)
          after_block(sign);
        else if (sign == '-')
          skip_space();
        return;
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    char c = source_[at_];
    if (is_name_start(c)) return name();
    if (is_digit_char(c)) return number();
    if (c == '\'' || c == '"') return string(c);
    for (std::string_view two : {"**", "//", "==", "!=", ">=", "<="})
      if (looking_at(two)) return add_operator(two);
    if (std::string_view("+-*/%~[](){}<>=.:|,;").find(c) == std::string_view::npos)
      fail(fmt::format("unexpected character '{}'", c));
    balance(c, brackets);
    add_operator({&source_[at_], 1});
  }

  void add_operator(std::string_view text) {
    add(Token::op, std::string(text));
    advance(text.size());
  }

  void balance(char c, std::string& brackets) const {
    if (size_t open = std::string_view("([{").find(c); open != std::string_view::npos) brackets += ")]}"[open];
    if (std::string_view(")]}").find(c) == std::string_view::npos) return;
    if (brackets.empty() || brackets.back() != c) fail(fmt::format("unexpected '{}'", c));
    brackets.pop_back();
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && (is_name_start(source_[end]) || is_digit_char(source_[end]))) ++end;
    add(Token::name, source_.substr(at_, end - at_));
    advance(end - at_);
  }

  size_t digits_end(size_t at) const {
    while (at < source_.size() &&
           (is_digit_char(source_[at]) ||
            (source_[at] == '_' && at + 1 < source_.size() && is_digit_char(source_[at + 1]))))
      ++at;
    return at;
  }

  void number() {
    size_t end = digits_end(at_);
    bool after_dot = at_ > 0 && source_[at_ - 1] == '.', real = false;
    if (!after_dot && end + 1 < source_.size() && source_[end] == '.' && is_digit_char(source_[end + 1])) {
      end = digits_end(end + 1);
      real = true;
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1 + (source_[end + 1] == '+' || source_[end + 1] == '-');
      if (exponent < source_.size() && is_digit_char(source_[exponent])) {
        end = digits_end(exponent);
        real = true;
      }
    }
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    if (!real && text.size() > 1 && text[0] == '0' && text.find_first_not_of('0') != std::string::npos)
      fail(fmt::format("the number {} begins with 0", text));
    add(real ? Token::real : Token::integer, text);
    advance(end - at_);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("a text is not closed by its quote");
    add(Token::string, unescaped(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1 - at_);
  }

  std::string unescaped(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\\')
        i += escape(text.substr(i + 1), out);
      else
        out += text[i];
    }
    return out;
  }

  // What stands after a backslash, and how many bytes of it.
  size_t escape(std::string_view rest, std::string& out) const {
    constexpr std::string_view kNames = "\n\\'\"abfnrtv", kMeanings = "\0\\'\"\a\b\f\n\r\t\v";
    if (rest[0] == '\n') return 1;  // the line goes on
    if (size_t at = kNames.find(rest[0]); at != std::string_view::npos) return out += kMeanings[at], 1;
    size_t digits = rest[0] == 'x' ? 2 : rest[0] == 'u' ? 4 : rest[0] == 'U' ? 8 : 0;
    if (digits) return code_point(rest.substr(1, digits), digits, 16, out) + 1;
    if (rest[0] >= '0' && rest[0] <= '7') {
      size_t length = std::min<size_t>(3, rest.find_first_not_of("01234567") == std::string_view::npos
                                              ? rest.size()
                                              : rest.find_first_not_of("01234567"));
      return code_point(rest.substr(0, length), length, 8, out);
    }
    if (rest[0] == 'N') fail("escapes by name (\\N{...}) are not supported");
    out += '\\';
    return 0;
  }

  size_t code_point(std::string_view text, size_t digits, int base, std::string& out) const {
    char* end = nullptr;
    std::string copy(text);
    unsigned long code = std::strtoul(copy.c_str(), &end, base);
    if (copy.size() != digits || *end || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      fail(fmt::format("'\\{}' is no character", text));
    data::utf8_append(out, static_cast<char32_t>(code));
    return digits;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace tessera::chat
