// Tokens that are found in the text before it is cut into words: <|endoftext|> and its like. The longest one
// wins at each place, scanning from the left.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::data {

struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false;      // left out of decoded text
  bool normalized = false;   // looked for after normalisation
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // and after it
};

class AddedTokens {
 public:
  void add(AddedToken token);
  bool empty() const { return tokens_.empty(); }

  // Cuts `text` into tokens (id >= 0) and the text between them (id -1, never empty), in order. Without
  // `with_special` the special ones are plain text.
  using Sink = std::function<void(std::string_view text, int64_t id)>;
  void split(std::string_view text, bool with_special, const Sink& sink) const;

 private:
  const AddedToken* longest_at(std::string_view text, size_t at) const;
  std::vector<AddedToken> tokens_;                        // longest first
  std::array<std::vector<size_t>, 256> by_first_byte_{};  // indices into tokens_
};

}  // namespace tessera::data
