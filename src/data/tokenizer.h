// Text to token ids and back, with the vocabularies that models are published with:
//   tokenizer.json  Hugging Face, byte-level BPE (GPT-2, GPT-NeoX, Llama-3, Qwen, DeepSeek, StarCoder)
//   tok512.bin      llama2.c, scored BPE with byte fallback (stories260K)
//
//   TESSERA_ASSIGN_OR_RETURN(auto tokenizer, load_tokenizer(model_dir));
//   auto ids = tokenizer->encode("Once upon a time", {.add_special_tokens = true});
//
// encode() takes any bytes; what is no UTF-8 is encoded byte by byte and comes back unchanged where the
// vocabulary has all 256 bytes and no normaliser. Ids outside the vocabulary decode to nothing.
// Threads: a Tokenizer is immutable; any thread may use it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/result.h"

namespace tessera::data {

struct EncodeOptions {
  // Puts in what the vocabulary's author puts around a text, such as the begin token. Prompts want it.
  bool add_special_tokens = false;
  // Recognises special tokens written out in the text. Off for text that must not be able to end a document.
  bool parse_special_tokens = true;
  // Called now and then with the bytes of text done; may be empty.
  std::function<void(size_t)> progress = {};
};

class Tokenizer {
 public:
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  virtual ~Tokenizer() = default;

  virtual std::vector<int64_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;

  // The bytes of the ids, perhaps no UTF-8. Special tokens are left out unless asked for.
  std::string decode(std::span<const int64_t> ids, bool skip_special_tokens = true) const;
  // As decode() of [previous, id] minus decode() of [previous]; previous -1: nothing before.
  std::string decode_one(int64_t id, int64_t previous = -1, bool skip_special_tokens = true) const;

  // The token alone, special ones included; "" outside the vocabulary.
  std::string_view bytes_of(int64_t id) const;
  bool is_special(int64_t id) const { return known(id) && tokens_[static_cast<size_t>(id)].special; }
  // By the bytes it stands for: "<|endoftext|>", " the".
  std::optional<int64_t> token_to_id(std::string_view bytes) const;

  int64_t vocab_size() const { return static_cast<int64_t>(tokens_.size()); }  // largest id + 1
  std::optional<int64_t> bos_id() const { return bos_id_; }
  std::optional<int64_t> eos_id() const { return eos_id_; }

  // What the model's other files say about its begin and end tokens; used by the loaders.
  void set_bos_id(std::optional<int64_t> id) { bos_id_ = known(id.value_or(-1)) ? id : bos_id_; }
  void set_eos_id(std::optional<int64_t> id) { eos_id_ = known(id.value_or(-1)) ? id : eos_id_; }

 protected:
  struct Token {
    std::string bytes;
    bool special = false;
    bool fallback =
        false;  // one byte of what has no token of its own; another token with these bytes goes first
  };
  // Fills the id -> bytes table; of equal bytes the first id answers token_to_id.
  void set_tokens(std::vector<Token> tokens);
  bool known(int64_t id) const { return id >= 0 && id < vocab_size(); }

  // llama2.c puts a space in front of every text; after the begin token it is taken out again.
  bool drops_space_after_bos_ = false;
  std::optional<int64_t> bos_id_, eos_id_;

 private:
  std::vector<Token> tokens_;
  std::unordered_map<std::string_view, int64_t> ids_;  // keys lie in tokens_
};

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

// A model's folder (tokenizer.json, else tok512.bin or tokenizer.bin) or one such file. Begin and end tokens
// come from tokenizer_config.json, else config.json, beside it, else from their usual names.
// Errors: not_found; invalid_argument with the file's name for a kind that is not supported; data_loss for a
// torn file.
Result<TokenizerPtr> load_tokenizer(const std::filesystem::path& folder_or_file);

// The content of one file; `where` is for messages.
Result<std::shared_ptr<Tokenizer>> parse_tokenizer_json(std::string_view content, std::string_view where);
Result<std::shared_ptr<Tokenizer>> parse_llama2c_tokenizer(std::string_view content, std::string_view where);

// Tokens arrive one by one and may cut a character in two. push() gives the bytes that are complete UTF-8 by
// now. Bytes that can no longer become UTF-8 come out as U+FFFD.
class StreamDecoder {
 public:
  // `previous`: the last token of the prompt, -1 for none.
  explicit StreamDecoder(TokenizerPtr tokenizer, int64_t previous = -1)
      : tokenizer_(std::move(tokenizer)), previous_(previous) {}
  std::string push(int64_t id);
  // At the end of the stream: what is still waiting.
  std::string flush();

 private:
  TokenizerPtr tokenizer_;
  int64_t previous_;
  std::string waiting_;
};

}  // namespace tessera::data
