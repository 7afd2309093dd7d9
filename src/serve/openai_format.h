// What an answer must look like: response_format of chat completions; guided_json, guided_regex and
// guided_choice, or structured_outputs with json, regex, choice or json_object, of both. Threads: any.
#pragma once

#include "serve/openai_fields.h"

namespace tessera::serve {

// The body with the order of its keys, which is that of an answer's properties. Read when first asked for.
class OrderedBody {
 public:
  explicit OrderedBody(std::string_view text) : text_(text) {}  // must outlive this
  const Result<chat::Value>& value();

 private:
  std::string_view text_;
  std::optional<Result<chat::Value>> value_;
};

// Nothing when any text will do, or after an error in `fields`, which reads the same body.
std::shared_ptr<const grammar::Grammar> read_format(Fields& fields, OrderedBody& body, bool chat);
// Other forms than response_format have no place beside calls of functions.
void refuse_guided(Fields& fields);
// The schema of response_format, when it asks for JSON.
std::optional<chat::Value> response_schema(Fields& fields, OrderedBody& body);

// Holds all choices of a call to `format`, over the tokens of `vocabulary`. REQUIRES: prompts, lengths and end
// tokens of the requests are set.
void apply_format(std::shared_ptr<const grammar::Grammar> format, std::shared_ptr<const Vocabulary> vocabulary,
                  const ServedName& model, CompletionCall& call);

}  // namespace tessera::serve
