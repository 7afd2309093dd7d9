// The tokenizer of llama2.c (Karpathy): scored BPE over characters, bytes for what is not in the vocabulary.
//
// File, little-endian: int32 longest token in bytes, then for each id: float32 score, int32 length, bytes.
// Id 0 is unknown, 1 begins a text, 2 ends it, 3 + b is byte b written "<0xBB>".
#include <cmath>
#include <cstring>
#include <limits>
#include <queue>

#include "data/tokenizer.h"
#include "data/utf8.h"

namespace tessera::data {
namespace {

constexpr int64_t kBos = 1, kEos = 2, kFirstByte = 3;
constexpr int32_t kMostTokenBytes = 4096;

// A neighbouring pair whose joined text is a token. The best score first, then the leftmost.
struct ScoredPair {
  float score;
  int32_t left;
  size_t bytes;  // of the pair when it was offered: another size means it is stale
  int64_t merged;
  bool operator<(const ScoredPair& other) const {
    return score != other.score ? score < other.score : left > other.left;
  }
};

struct ScoredSymbol {
  int64_t id;
  size_t begin, size;  // in the text; bytes of fallback symbols too
  int32_t previous, next;
  bool is_byte;  // not a token's text: never merged
  bool alive = true;
};

class ScoredTokenizer : public Tokenizer {
 public:
  ScoredTokenizer(std::vector<std::string> pieces, std::vector<float> scores) : scores_(std::move(scores)) {
    std::vector<Token> tokens;
    for (size_t id = 0; id < pieces.size(); ++id) {
      pieces_.try_emplace(pieces[id], static_cast<int64_t>(id));
      auto byte = static_cast<int64_t>(id) - kFirstByte;
      bool is_byte = byte >= 0 && byte < 256;
      tokens.push_back({is_byte ? std::string(1, static_cast<char>(byte)) : std::move(pieces[id]),
                        static_cast<int64_t>(id) < kFirstByte, is_byte});
    }
    set_tokens(std::move(tokens));
    drops_space_after_bos_ = true;
    bos_id_ = kBos;
    eos_id_ = kEos;
  }

  std::vector<int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<int64_t> ids;
    if (options.add_special_tokens) ids.push_back(kBos);
    if (text.empty()) return ids;
    std::string spaced = " ";
    spaced += text;
    std::vector<ScoredSymbol> symbols = characters(spaced);
    merge(spaced, symbols);
    for (const ScoredSymbol& symbol : symbols)
      if (symbol.alive) ids.push_back(symbol.id);
    return ids;
  }

 private:
  std::vector<ScoredSymbol> characters(std::string_view text) const;
  void merge(std::string_view text, std::vector<ScoredSymbol>& symbols) const;

  std::vector<float> scores_;
  std::unordered_map<std::string, int64_t> pieces_;
};

// One symbol for each character in the vocabulary, one for each byte of the others.
std::vector<ScoredSymbol> ScoredTokenizer::characters(std::string_view text) const {
  std::vector<ScoredSymbol> symbols;
  auto add = [&](int64_t id, size_t begin, size_t size, bool is_byte) {
    auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, begin, size, index - 1, index + 1, is_byte});
  };
  for (size_t at = 0; at < text.size();) {
    size_t length = std::max<size_t>(1, utf8_length(text.substr(at)));
    auto found = pieces_.find(std::string(text.substr(at, length)));
    if (found != pieces_.end()) {
      add(found->second, at, length, false);
    } else {
      for (size_t i = 0; i < length; ++i)
        add(kFirstByte + static_cast<unsigned char>(text[at + i]), at + i, 1, true);
    }
    at += length;
  }
  symbols.back().next = -1;
  return symbols;
}

void ScoredTokenizer::merge(std::string_view text, std::vector<ScoredSymbol>& symbols) const {
  auto at = [&](int32_t index) -> ScoredSymbol& { return symbols[static_cast<size_t>(index)]; };
  std::priority_queue<ScoredPair> queue;
  auto offer = [&](int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const ScoredSymbol &a = at(left), &b = at(a.next);
    if (a.is_byte || b.is_byte) return;
    auto found = pieces_.find(std::string(text.substr(a.begin, a.size + b.size)));
    if (found != pieces_.end())
      queue.push({scores_[static_cast<size_t>(found->second)], left, a.size + b.size, found->second});
  };
  for (size_t i = 0; i < symbols.size(); ++i) offer(static_cast<int32_t>(i));
  while (!queue.empty()) {
    ScoredPair best = queue.top();
    queue.pop();
    ScoredSymbol& left = at(best.left);
    if (!left.alive || left.next < 0 || left.size + at(left.next).size != best.bytes) continue;
    ScoredSymbol& right = at(left.next);
    right.alive = false;
    left.id = best.merged;
    left.size = best.bytes;
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
}

// Takes values off the front of a file's content.
class Reader {
 public:
  explicit Reader(std::string_view content) : content_(content) {}
  template <class T>
  bool take(T& value) {
    if (content_.size() - at_ < sizeof(T)) return false;
    std::memcpy(&value, content_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }
  bool take(std::string& bytes, size_t count) {
    if (content_.size() - at_ < count) return false;
    bytes.assign(content_.substr(at_, count));
    at_ += count;
    return true;
  }
  bool done() const { return at_ == content_.size(); }
  size_t at() const { return at_; }

 private:
  std::string_view content_;
  size_t at_ = 0;
};

}  // namespace

Result<std::shared_ptr<Tokenizer>> parse_llama2c_tokenizer(std::string_view content, std::string_view where) {
  auto torn = [&](std::string_view what, size_t offset) {
    return make_error(ErrorCode::data_loss, "{}: {} at byte {}; not a llama2.c tokenizer, or truncated", where,
                      what, offset);
  };
  Reader reader(content);
  int32_t longest = 0;
  if (!reader.take(longest) || longest <= 0 || longest > kMostTokenBytes) return torn("no length of tokens", 0);
  std::vector<std::string> pieces;
  std::vector<float> scores;
  while (!reader.done()) {
    size_t start = reader.at();
    float score = 0;
    int32_t length = 0;
    std::string piece;
    bool whole = reader.take(score) && reader.take(length) && length >= 0 && length <= kMostTokenBytes &&
                 reader.take(piece, static_cast<size_t>(length));
    if (!whole || std::isnan(score)) return torn(fmt::format("token {} is torn", pieces.size()), start);
    pieces.push_back(std::move(piece));
    scores.push_back(score);
  }
  if (pieces.size() < kFirstByte + 256)
    return torn(fmt::format("only {} tokens", pieces.size()), content.size());
  return std::shared_ptr<Tokenizer>(std::make_shared<ScoredTokenizer>(std::move(pieces), std::move(scores)));
}

}  // namespace tessera::data
