#include "data/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "data/utf8.h"

namespace tessera::data {
namespace {

char32_t first_character(std::string_view text) {
  size_t length = utf8_length(text);
  return length == 0 ? 0xFFFD : utf8_decode(text.substr(0, length));
}

// The character that ends at the end of `text`, and its length in bytes.
std::pair<char32_t, size_t> last_character(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(4, text.size()); ++length) {
    std::string_view tail = text.substr(text.size() - length);
    if (utf8_length(tail) == length) return {utf8_decode(tail), length};
  }
  return {0xFFFD, 1};
}

bool is_space(char32_t c) {
  if ((c >= 0x09 && c <= 0x0D) || c == 0x85) return true;
  auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP;
}

bool is_word(char32_t c) {
  auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_ND) ||
         category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_PC;
}

bool stands_alone(std::string_view text, size_t start, size_t stop) {
  bool free_left = start == 0 || !is_word(last_character(text.substr(0, start)).first);
  bool free_right = stop == text.size() || !is_word(first_character(text.substr(stop)));
  return free_left && free_right;
}

size_t without_spaces_before(std::string_view text, size_t start, size_t least) {
  while (start > least) {
    auto [character, length] = last_character(text.substr(0, start));
    if (!is_space(character) || start - length < least) break;
    start -= length;
  }
  return start;
}

size_t with_spaces_after(std::string_view text, size_t stop) {
  while (stop < text.size() && is_space(first_character(text.substr(stop))))
    stop += std::max<size_t>(1, utf8_length(text.substr(stop)));
  return stop;
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  if (token.content.empty()) return;
  auto longer = [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); };
  tokens_.insert(std::upper_bound(tokens_.begin(), tokens_.end(), token, longer), std::move(token));
  for (auto& indices : by_first_byte_) indices.clear();
  for (size_t i = 0; i < tokens_.size(); ++i)
    by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(i);
}

const AddedToken* AddedTokens::longest_at(std::string_view text, size_t at) const {
  for (size_t index : by_first_byte_[static_cast<unsigned char>(text[at])])
    if (text.substr(at).starts_with(tokens_[index].content)) return &tokens_[index];
  return nullptr;
}

void AddedTokens::split(std::string_view text, bool with_special, const Sink& sink) const {
  size_t done = 0, at = 0;
  while (!tokens_.empty() && at < text.size()) {
    const AddedToken* token = longest_at(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t start = at, stop = at + token->content.size();
    at = stop;
    if (token->special && !with_special) continue;
    if (token->single_word && !stands_alone(text, start, stop)) continue;
    if (start < done) continue;  // swallowed by the token before
    if (token->lstrip) start = without_spaces_before(text, start, done);
    if (token->rstrip) stop = with_spaces_after(text, stop);
    if (start > done) sink(text.substr(done, start - done), -1);
    sink(text.substr(start, stop - start), token->id);
    done = stop;
    at = std::max(at, done);
  }
  if (done < text.size()) sink(text.substr(done), -1);
}

}  // namespace tessera::data
