// Exceptions of libtorch, the JSON library and the standard library stop at the part's boundary: a public
// function that may meet one runs its body in guarded().
#pragma once

#include <exception>
#include <new>
#include <string_view>
#include <type_traits>

#include "core/result.h"

namespace tessera::checkpoint {

// `body` returns a Status or a Result; what it throws becomes an Error that starts with `what`.
template <class Body>
auto guarded(std::string_view what, Body&& body) -> std::invoke_result_t<Body> {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::resource_exhausted, "{}: no memory left", what);
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::internal, "{}: {}", what, exception.what());
  }
}

}  // namespace tessera::checkpoint
