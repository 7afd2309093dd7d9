#include "comm/store_protocol.h"

#include <cstring>

namespace tessera::comm {
namespace {

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
template <class T>
T unraw(std::string_view bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}
Error torn(const char* what) {
  return make_error(ErrorCode::data_loss, "store: {} is torn or not of this protocol", what);
}

}  // namespace

std::string frame(std::string_view body) {
  return raw(static_cast<uint32_t>(body.size())).append(body);
}

std::string encode(const StoreRequest& request) {
  std::string body = raw(request.call) + raw(static_cast<uint32_t>(request.key.size()));
  return body + request.key + request.argument;
}

Result<StoreRequest> decode_request(std::string_view body) {
  constexpr size_t kHead = 1 + sizeof(uint32_t);
  if (body.size() < kHead) return torn("a request");
  auto call = static_cast<uint8_t>(body[0]);
  bool known =
      call >= static_cast<uint8_t>(StoreCall::hello) && call <= static_cast<uint8_t>(StoreCall::erase_prefix);
  uint32_t key_bytes = unraw<uint32_t>(body.substr(1));
  if (!known || key_bytes > body.size() - kHead) return torn("a request");
  return StoreRequest{static_cast<StoreCall>(call), std::string(body.substr(kHead, key_bytes)),
                      std::string(body.substr(kHead + key_bytes))};
}

std::string encode_answer(const Result<std::string>& answer) {
  if (answer) return raw(uint8_t{0}) + *answer;
  return raw(static_cast<uint8_t>(1 + static_cast<int>(answer.error().code))) + answer.error().message;
}

Result<std::string> decode_answer(std::string_view body) {
  if (body.empty()) return torn("an answer");
  auto code = static_cast<uint8_t>(body[0]);
  std::string rest(body.substr(1));
  if (code == 0) return rest;
  if (code > 1 + static_cast<uint8_t>(ErrorCode::internal)) return torn("an answer");
  return Error{static_cast<ErrorCode>(code - 1), rest};
}

std::string encode_number(int64_t number) {
  return raw(number);
}

Result<int64_t> decode_number(std::string_view bytes) {
  if (bytes.size() != sizeof(int64_t)) return torn("a number");
  return unraw<int64_t>(bytes);
}

Result<std::optional<std::string>> take_frame(std::string& buffer, size_t longest) {
  if (buffer.size() < sizeof(uint32_t)) return std::optional<std::string>();
  size_t bytes = unraw<uint32_t>(buffer);
  if (bytes > longest) return torn("a frame");
  if (buffer.size() < sizeof(uint32_t) + bytes) return std::optional<std::string>();
  std::optional<std::string> body = buffer.substr(sizeof(uint32_t), bytes);
  buffer.erase(0, sizeof(uint32_t) + bytes);
  return body;
}

}  // namespace tessera::comm
