#include "data/tokenizer.h"

#include <algorithm>

#include "data/utf8.h"

namespace tessera::data {

void Tokenizer::set_tokens(std::vector<Token> tokens) {
  tokens_ = std::move(tokens);
  ids_.clear();
  for (bool fallback : {false, true})
    for (size_t id = 0; id < tokens_.size(); ++id)
      if (tokens_[id].fallback == fallback && !tokens_[id].bytes.empty())
        ids_.try_emplace(tokens_[id].bytes, static_cast<int64_t>(id));
}

std::string_view Tokenizer::bytes_of(int64_t id) const {
  return known(id) ? std::string_view(tokens_[static_cast<size_t>(id)].bytes) : std::string_view();
}

std::optional<int64_t> Tokenizer::token_to_id(std::string_view bytes) const {
  auto found = ids_.find(bytes);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::string Tokenizer::decode_one(int64_t id, int64_t previous, bool skip_special_tokens) const {
  if (skip_special_tokens && is_special(id)) return "";
  std::string_view bytes = bytes_of(id);
  bool after_bos = drops_space_after_bos_ && bos_id_ && previous == *bos_id_;
  if (after_bos && bytes.starts_with(' ')) bytes.remove_prefix(1);
  return std::string(bytes);
}

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special_tokens) const {
  std::string text;
  int64_t previous = -1;
  for (int64_t id : ids) {
    text += decode_one(id, previous, skip_special_tokens);
    previous = id;
  }
  return text;
}

std::string StreamDecoder::push(int64_t id) {
  waiting_ += tokenizer_->decode_one(id, previous_);
  previous_ = id;
  size_t cut = waiting_.size();
  for (size_t tail = 1; tail <= std::min<size_t>(3, waiting_.size()); ++tail)
    if (utf8_is_cut(std::string_view(waiting_).substr(waiting_.size() - tail))) cut = waiting_.size() - tail;
  std::string complete = utf8_lossy(std::string_view(waiting_).substr(0, cut));
  waiting_.erase(0, cut);
  return complete;
}

std::string StreamDecoder::flush() {
  std::string rest = utf8_lossy(waiting_);
  waiting_.clear();
  return rest;
}

}  // namespace tessera::data
