// Names of the kinds of training state, and all of them.
#pragma once

#include <array>
#include <string_view>

#include "checkpoint/pieces.h"

namespace tessera::checkpoint {

inline constexpr std::array kStateKinds = {StateKind::master, StateKind::moment1, StateKind::moment2};

Result<StateKind> parse_state_kind(std::string_view text);

}  // namespace tessera::checkpoint
