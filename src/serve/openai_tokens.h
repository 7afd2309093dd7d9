// POST /tokenize and /detokenize, as vLLM has them: text or a conversation to token ids, and back.
//   {"model": M, "prompt": TEXT, "add_special_tokens": true, "return_token_strs": false}
//   {"model": M, "messages": [...], "tools": [...], "add_generation_prompt": true, ...}
//     -> {"count", "max_model_len", "tokens", "token_strs"}
//   {"model": M, "tokens": [...]} -> {"prompt"}
// Threads: any.
#pragma once

#include "serve/openai_request.h"

namespace tessera::serve {

// The body of the answer.
std::variant<std::string, ApiError> tokenize(std::string_view body, const data::Tokenizer& tokenizer,
                                             const ServedName& model);
std::variant<std::string, ApiError> detokenize(std::string_view body, const data::Tokenizer& tokenizer,
                                               const ServedName& model);

}  // namespace tessera::serve
