// A call across a part's boundary can fail for reasons the caller must be able to tell apart:
// the user's input, the environment (a peer, a disk), or lost data. Such calls return Result<T>.
// Exceptions never cross a boundary; programmer errors stop the program through TESSERA_REQUIRE.
//
//   Result<Layout> layout = parse_layout("fsdp=2,tp=2");
//   if (!layout) return layout.error();
//
// Text of an Error: what, where, got, expected, what to try; lower-case start, no final period.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace tessera {

enum class ErrorCode {
  invalid_argument,    // the user's input is wrong; trying again with the same input fails again
  not_found,           // a file, key or name is not there
  data_loss,           // content exists but is torn, truncated or has a wrong hash
  unavailable,         // a peer or service is gone; may work again after recovery
  deadline_exceeded,   // nothing came in time
  aborted,             // another thread or rank gave up on the operation
  resource_exhausted,  // no memory, no disk, no quota
  internal,            // a library below failed in a way we do not know
};

const char* to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;

  // Puts `where` in front: "layer 3: " + message.
  Error within(std::string_view where) const { return {code, fmt::format("{}: {}", where, message)}; }
};

template <class... Args>
Error make_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return {code, fmt::format(format, std::forward<Args>(args)...)};
}
template <class... Args>
Error invalid(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::invalid_argument, format, std::forward<Args>(args)...);
}

// Either a value or an Error. value() of an error is a programmer error.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return std::get<1>(state_); }

  T& value() & { return checked(*this); }
  const T& value() const& { return checked(*this); }
  T&& value() && { return std::move(checked(*this)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  template <class Self>
  static auto& checked(Self& self);
  std::variant<T, Error> state_;
};

// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

// Prints file, line and message to standard error, then aborts the process.
[[noreturn]] void fail_requirement(const char* file, int line, const char* condition,
                                   const std::string& message);

template <class T>
template <class Self>
auto& Result<T>::checked(Self& self) {
  if (!self.ok()) fail_requirement(__FILE__, __LINE__, "Result has a value", self.error().message);
  return std::get<0>(self.state_);
}

}  // namespace tessera

// A claim of the programmer, always checked. For user input return an Error instead.
#define TESSERA_REQUIRE(condition, ...)                                                                      \
  do {                                                                                                       \
    if (!(condition)) ::tessera::fail_requirement(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
  } while (false)

#define TESSERA_RETURN_IF_ERROR(expression)                                                      \
  do {                                                                                           \
    if (auto tessera_status = (expression); !tessera_status.ok()) return tessera_status.error(); \
  } while (false)

// TESSERA_ASSIGN_OR_RETURN(auto layout, parse_layout(text));
#define TESSERA_CONCAT_INNER(a, b) a##b
#define TESSERA_CONCAT(a, b) TESSERA_CONCAT_INNER(a, b)
#define TESSERA_ASSIGN_OR_RETURN(declaration, expression)        \
  auto TESSERA_CONCAT(tessera_result_, __LINE__) = (expression); \
  if (!TESSERA_CONCAT(tessera_result_, __LINE__).ok())           \
    return TESSERA_CONCAT(tessera_result_, __LINE__).error();    \
  declaration = std::move(TESSERA_CONCAT(tessera_result_, __LINE__)).value()
