// What the filters of templates do. `value` is what stands before the bar; the arguments are those that
// filters.cpp names.
#pragma once

#include <optional>
#include <string>

#include "chat/builtins.h"

namespace tessera::chat {

// As str() makes it, and paid for.
std::string text_of(Env& env, const Value& value);
bool is_given(const Given& given, size_t i);

// ---- sequences and dicts ----

Value length_of(const Value& value);
Value end_of(const Value& value, bool last);
Value join(Env& env, const Value& value, const Given& given);
Value reversed(const Value& value);
Value sorted(Env& env, const Value& value, const Given& given);
Value dict_sorted(Env& env, const Value& value, const Given& given);
Value extreme(Env& env, const Value& value, const Given& given, bool largest);
Value unique(Env& env, const Value& value, const Given& given);
Value map_elements(Env& env, const Value& value, const Given& given);
// select, reject and, when `by_attribute`, selectattr and rejectattr.
Value select(Env& env, const Value& value, const Given& given, bool by_attribute, bool wanted);
Value batch(const Value& value, const Given& given);
Value sum(Env& env, const Value& value, const Given& given);
Value dict_items(const Value& value);

// ---- numbers and texts ----

Value absolute(const Value& value);
Value rounded(const Value& value, const Given& given);
std::optional<double> to_real(const Value& value);
Value to_integer(const Value& value, const Given& given);
Value title_words(const std::string& bytes);
Value indent(Env& env, const Value& value, const Given& given);
Value truncate(Env& env, const Value& value, const Given& given);
Value json_text(Env& env, const Value& value, const Given& given);

}  // namespace tessera::chat
