// What an answer must look like: response_format of chat completions, and guided_json and guided_choice of
// both. Threads: any.
#pragma once

#include "serve/openai_fields.h"

namespace tessera::serve {

// Nothing when any text will do, or after an error in `fields`. `text`: the body that `fields` reads.
std::shared_ptr<const grammar::Grammar> read_format(Fields& fields, std::string_view text, bool chat);

// Holds all choices of a call to `format`. REQUIRES: prompts, lengths and end tokens of the requests are set.
void apply_format(std::shared_ptr<const grammar::Grammar> format, const ServedName& model,
                  CompletionCall& call);

}  // namespace tessera::serve
