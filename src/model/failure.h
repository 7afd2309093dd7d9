// Deep inside a layer a collective can fail. Below the trainer such a failure travels as an exception, so that
// layers read as arithmetic; Trainer catches it at its boundary and returns the Error.
#pragma once

#include <exception>
#include <utility>

#include "core/result.h"

namespace tessera::model {

class Failure : public std::exception {
 public:
  explicit Failure(Error error) : error_(std::move(error)) {}
  const char* what() const noexcept override { return error_.message.c_str(); }
  const Error& error() const { return error_; }

 private:
  Error error_;
};

inline void check(const Status& status) {
  if (!status.ok()) throw Failure(status.error());
}

template <class T>
T check(Result<T> result) {
  if (!result.ok()) throw Failure(result.error());
  return std::move(result).value();
}

}  // namespace tessera::model
