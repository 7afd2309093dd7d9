#include "core/result.h"

#include <cstdio>
#include <cstdlib>

namespace tessera {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid argument";
    case ErrorCode::not_found:
      return "not found";
    case ErrorCode::data_loss:
      return "data loss";
    case ErrorCode::unavailable:
      return "unavailable";
    case ErrorCode::deadline_exceeded:
      return "deadline exceeded";
    case ErrorCode::aborted:
      return "aborted";
    case ErrorCode::resource_exhausted:
      return "resource exhausted";
    case ErrorCode::internal:
      return "internal";
  }
  return "unknown";
}

void fail_requirement(const char* file, int line, const char* condition, const std::string& message) {
  std::fprintf(stderr, "%s:%d: requirement `%s` does not hold: %s\n", file, line, condition, message.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace tessera
