// A mistyped key or name deserves the nearest known one in its error.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// Levenshtein distance in bytes.
int edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `word`, or "" when none is near enough to be meant (distance above a third of the
// length + 1).
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// "" or "; did you mean 'X'?", to be put at the end of a message.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace tessera
