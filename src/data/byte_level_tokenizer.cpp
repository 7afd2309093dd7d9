#include "data/byte_level_tokenizer.h"

#include <algorithm>
#include <deque>

namespace tessera::data {
namespace {

// Words repeat: what a word became is remembered within one call, up to this many different ones.
constexpr size_t kCachedWords = 1 << 16;
constexpr size_t kCachedWordBytes = 48;
constexpr size_t kProgressBytes = 1 << 16;

}  // namespace

struct ByteLevelTokenizer::Run {
  const EncodeOptions& options;
  std::vector<int64_t> ids;
  // The words seen, as (offset, count) in `ids`.
  std::unordered_map<std::string, std::pair<size_t, size_t>> cache;
  size_t bytes_done = 0;
  size_t next_report = kProgressBytes;
};

ByteLevelTokenizer::ByteLevelTokenizer(Parts parts) : parts_(std::move(parts)) {
  int64_t size = 0;
  for (const auto& [id, bytes] : parts_.tokens) size = std::max(size, id + 1);
  for (const auto& token : parts_.added) size = std::max(size, token.id + 1);
  std::vector<Token> tokens(static_cast<size_t>(size));
  for (auto& [id, bytes] : parts_.tokens) tokens[static_cast<size_t>(id)].bytes = std::move(bytes);
  parts_.tokens.clear();
  for (const AddedToken& token : parts_.added) {
    tokens[static_cast<size_t>(token.id)] = {token.content, token.special};
    AddedToken wanted = token;
    if (token.normalized) wanted.content = parts_.normalizer.apply(token.content);
    (token.normalized ? normalized_added_ : raw_added_).add(std::move(wanted));
  }
  set_tokens(std::move(tokens));
}

std::vector<int64_t> ByteLevelTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  Run run{options};
  if (options.add_special_tokens) run.ids = parts_.prefix;
  encode_raw(run, text);
  if (options.add_special_tokens) run.ids.insert(run.ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return std::move(run.ids);
}

void ByteLevelTokenizer::encode_raw(Run& run, std::string_view text) const {
  raw_added_.split(text, run.options.parse_special_tokens, [&](std::string_view piece, int64_t id) {
    if (id >= 0) return run.ids.push_back(id);
    if (parts_.normalizer.empty()) return encode_normalized(run, piece);
    encode_normalized(run, parts_.normalizer.apply(piece));
  });
}

void ByteLevelTokenizer::encode_normalized(Run& run, std::string_view text) const {
  normalized_added_.split(text, run.options.parse_special_tokens, [&](std::string_view piece, int64_t id) {
    if (id >= 0) return run.ids.push_back(id);
    encode_text(run, piece);
  });
}

void ByteLevelTokenizer::encode_text(Run& run, std::string_view text) const {
  auto sink = [&](std::string_view word) { encode_word(run, word); };
  if (!parts_.pre_tokenizer.adds_prefix_space() || text.starts_with(' '))
    return parts_.pre_tokenizer.split(text, sink);
  std::string prefixed = " ";
  parts_.pre_tokenizer.split(prefixed.append(text), sink);
}

void ByteLevelTokenizer::encode_word(Run& run, std::string_view word) const {
  run.bytes_done += word.size();
  if (run.options.progress && run.bytes_done >= run.next_report) {
    run.options.progress(run.bytes_done);
    run.next_report = run.bytes_done + kProgressBytes;
  }
  std::string key(word);
  if (parts_.ignore_merges)
    if (auto whole = parts_.words.find(key); whole != parts_.words.end())
      return run.ids.push_back(whole->second);
  if (auto seen = run.cache.find(key); seen != run.cache.end()) {
    auto [offset, count] = seen->second;
    for (size_t i = 0; i < count; ++i) run.ids.push_back(run.ids[offset + i]);
    return;
  }
  size_t offset = run.ids.size();
  parts_.pairs.encode(word, run.ids);
  if (word.size() <= kCachedWordBytes && run.cache.size() < kCachedWords)
    run.cache.emplace(std::move(key), std::pair{offset, run.ids.size() - offset});
}

}  // namespace tessera::data
