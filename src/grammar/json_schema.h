// JSON schemas as grammars: every text that the grammar takes is JSON that the schema accepts. The grammar may
// take less: properties come in the schema's order, further ones only where the schema names none, numbers have
// at most 18 digits, white space is short.
//
// Taken: type, properties, required, additionalProperties, items, minItems, maxItems, minLength, maxLength,
// enum, const, anyOf, allOf of one, $ref into $defs and definitions, true, false. Anything else that restricts
// is refused by name. Threads: any.
#pragma once

#include <memory>

#include "chat/value.h"
#include "grammar/grammar.h"

namespace tessera::grammar {

// Errors: invalid_argument with the place in the schema and what to do.
Result<std::shared_ptr<const Grammar>> json_of_schema(const chat::Value& schema);
// Any JSON object.
Result<std::shared_ptr<const Grammar>> any_json_object();
// One of these texts, none of them empty.
Result<std::shared_ptr<const Grammar>> one_of(const std::vector<std::string>& choices);

}  // namespace tessera::grammar
