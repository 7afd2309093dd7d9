#include "data/residue_tokenizer.h"

#include <algorithm>

namespace tessera::data {
namespace {

class ResidueTokenizer : public Tokenizer {
 public:
  ResidueTokenizer(std::vector<Token> tokens, int64_t unknown) : unknown_(unknown) {
    for (const Token& token : tokens) longest_ = std::max(longest_, token.bytes.size());
    set_tokens(std::move(tokens));
    bos_id_ = token_to_id("<cls>");
    eos_id_ = token_to_id("<eos>");
  }

  std::vector<int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<int64_t> ids;
    if (options.add_special_tokens) ids.push_back(*bos_id_);
    bool in_unknown = false;
    for (size_t at = 0; at < text.size();) {
      const auto [id, length] = longest_at(text.substr(at), options.parse_special_tokens);
      const bool blank = id < 0 && is_blank(text[at]);
      if (id >= 0) ids.push_back(id);
      if (id < 0 && !blank && !in_unknown) ids.push_back(unknown_);
      in_unknown = id < 0 && !blank;
      at += id >= 0 ? length : 1;
      if (options.progress && at % (1 << 20) == 0) options.progress(at);
    }
    if (options.add_special_tokens) ids.push_back(*eos_id_);
    return ids;
  }

 private:
  static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

  std::pair<int64_t, size_t> longest_at(std::string_view text, bool special) const {
    for (size_t length = std::min(longest_, text.size()); length > 0; --length) {
      const auto id = token_to_id(text.substr(0, length));
      if (id && (special || !is_special(*id))) return {*id, length};
    }
    return {-1, 0};
  }

  int64_t unknown_;
  size_t longest_ = 0;
};

}  // namespace

Result<std::shared_ptr<Tokenizer>> parse_residue_vocabulary(std::string_view content, std::string_view where) {
  struct Open : Tokenizer {
    using Tokenizer::Token;
  };
  std::vector<Open::Token> tokens;
  int64_t unknown = -1;
  bool begins = false, ends = false;
  while (!content.empty()) {
    const size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (line == "<unk>") unknown = std::ssize(tokens);
    begins |= line == "<cls>";
    ends |= line == "<eos>";
    tokens.push_back({.bytes = std::string(line), .special = line.size() > 2 && line.starts_with('<')});
  }
  if (unknown < 0 || !begins || !ends)
    return invalid(
        "{}: a list of words without <cls>, <eos> and <unk>; only the vocabularies of ESM-2 are read "
        "from such a file, give tokenizer.json",
        where);
  return std::shared_ptr<Tokenizer>(std::make_shared<ResidueTokenizer>(std::move(tokens), unknown));
}

}  // namespace tessera::data
