// The line of what failed, put in front of the message once.
#pragma once

#include <fmt/format.h>

#include "chat/value.h"

namespace tessera::chat {

struct LocatedError : TemplateError {
  using TemplateError::TemplateError;
};

template <class Work>
auto located(int line, const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const LocatedError&) {
    throw;
  } catch (const TemplateError& error) {
    throw LocatedError(fmt::format("line {}: {}", line, error.what()));
  }
}

}  // namespace tessera::chat
