// Regular expressions as automata, in the dialect that JavaScript (JSON schema's `pattern`) and Python's re
// share: characters and their escapes, classes, \d \w \s and their opposites, '.', groups, '|', greedy and lazy
// quantifiers, '^' and '$'. Where the two differ (is 'é' a \w?) what both take is taken. Look-around, back
// references, \b, flags and properties are refused with their place.
#pragma once

#include "core/result.h"
#include "grammar/automaton.h"

namespace tessera::grammar {

enum class RegexMatch {
  whole,     // the whole text, as Python's fullmatch
  anywhere,  // a part of the text, as JSON schema's pattern
};
// Which texts where dialects differ: those that all of them match, or those that any of them matches.
enum class RegexReading { narrow, wide };

// Errors: invalid_argument with the place in the expression.
Result<Automaton> automaton_of_regex(std::string_view regex, RegexMatch match,
                                     RegexReading reading = RegexReading::narrow);

}  // namespace tessera::grammar
