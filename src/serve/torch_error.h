// What an exception of libtorch says, without its stack of frames: an error is one readable line.
#pragma once

#include <c10/util/Exception.h>

#include <string>

namespace tessera::serve {

inline std::string text_of(const std::exception& exception) {
  const auto* torch = dynamic_cast<const c10::Error*>(&exception);
  return torch ? torch->what_without_backtrace() : exception.what();
}

}  // namespace tessera::serve
