// What + - * / // % ** ~ do to two values, with Python's results; integers beyond 64 bits are refused.
#pragma once

#include <string>

#include "chat/builtins.h"

namespace tessera::chat {

Value binary(Env& env, const std::string& op, const Value& a, const Value& b);
Value negative(const Value& value);
// `op` is one of == != < <= > >= in, not in.
bool comparison(Env& env, const std::string& op, const Value& a, const Value& b);
// value[start:stop:step]; absent bounds are none.
Value slice(Env& env, const Value& value, const Value& start, const Value& stop, const Value& step);

}  // namespace tessera::chat
