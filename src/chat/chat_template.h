// Models that chat were trained on conversations written out in their own way; a chat template, in Jinja's
// language, says which. Renders it as Hugging Face transformers does: blocks trimmed, `break` and `continue`,
// tojson with Python's spelling, raise_exception, strftime_now, and `generation` blocks.
//
// Templates are untrusted: parsing and rendering are bounded in depth, time and memory.
// Threads: a ChatTemplate is immutable; any thread may render.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/value.h"

namespace tessera::chat {

struct RenderOptions {
  // What strftime_now(format) gives; empty: the local time.
  std::function<std::string(const std::string& format)> strftime_now = {};
};

class ChatTemplate {
 public:
  // Errors: invalid_argument with line and construct, for what is no template or uses what is not supported.
  static Result<ChatTemplate> parse(std::string_view source);

  // `variables`: messages, tools, add_generation_prompt, bos_token...
  // Errors: invalid_argument with the line, also when the template itself refuses (raise_exception).
  Result<std::string> render(const Dict& variables, const RenderOptions& options = {}) const;

 private:
  struct Parsed;
  std::shared_ptr<const Parsed> parsed_;
};

// The template of a model's folder and the special tokens that it is rendered with.
struct ModelChat {
  ChatTemplate chat_template;
  std::string source;
  Dict special_tokens;                   // bos_token, eos_token...
  std::vector<int64_t> end_tokens = {};  // eos_token_id of generation_config.json
};

// From chat_template.jinja, else chat_template.json, else tokenizer_config.json (of several templates:
// "default"). Nothing when the folder has none. `template_file` goes first when it is named. Errors: those of
// parse(), with the file's name.
Result<std::optional<ModelChat>> load_model_chat(const std::filesystem::path& folder,
                                                 const std::filesystem::path& template_file = {});

}  // namespace tessera::chat
