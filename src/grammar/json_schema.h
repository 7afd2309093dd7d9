// JSON schemas as grammars: every text that the grammar takes is JSON that the schema accepts. The grammar may
// take less: properties come in the schema's order, further ones only where the schema asks for some or names
// none, numbers have at most 18 digits and, between bounds, 15 and no exponent, white space is short.
//
// Taken: all of drafts 4 to 2020-12 but not, if, then, else, contains, dependent..., unevaluatedItems,
// references to other documents; oneOf of schemas that exclude each other; uniqueItems of an enum; patterns as
// in regex.h. What is not is refused by place and name. Threads: any.
#pragma once

#include <memory>

#include "chat/value.h"
#include "grammar/grammar.h"

namespace tessera::grammar {

// Errors: invalid_argument with the place in the schema and what to do.
Result<std::shared_ptr<const Grammar>> json_of_schema(const chat::Value& schema);
// Any JSON object.
Result<std::shared_ptr<const Grammar>> any_json_object();
// A rule of `grammar` for JSON of a schema, to be called by others; finish() is the caller's. Errors as above.
Result<int> add_json_of_schema(Grammar& grammar, const chat::Value& schema);
// One of these texts, none of them empty.
Result<std::shared_ptr<const Grammar>> one_of(const std::vector<std::string>& choices);

// What the regular expression matches as a whole.
Result<std::shared_ptr<const Grammar>> text_of_regex(std::string_view regex);

}  // namespace tessera::grammar
