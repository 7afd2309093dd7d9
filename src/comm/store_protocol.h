// Frames between store clients and server. Integers are little-endian.
//
//   frame      u32 bytes of the body, body
//   request    u8 call, u32 bytes of the key, key, argument
//                hello: key = the token, must come first    set: value    get: i64 milliseconds to wait
//                add: i64 amount    try_get, erase_prefix: nothing
//   answer     u8 0, result (set, hello: nothing; get: value; try_get: u8 whether there, value; add,
//              erase_prefix: i64), or u8 1 + ErrorCode, text
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "comm/group.h"

namespace tessera::comm {

enum class StoreCall : uint8_t { hello = 1, set, get, add, try_get, erase_prefix };

struct StoreRequest {
  StoreCall call = StoreCall::hello;
  std::string key, argument;
};

constexpr size_t kLongestHello = 8192;  // frames of strangers
constexpr size_t kLongestFrame = 64 << 20;

std::string frame(std::string_view body);
std::string encode(const StoreRequest& request);
Result<StoreRequest> decode_request(std::string_view body);
std::string encode_answer(const Result<std::string>& answer);
Result<std::string> decode_answer(std::string_view body);

std::string encode_number(int64_t number);
Result<int64_t> decode_number(std::string_view bytes);

// Takes one whole body from the front of `buffer`, or nothing yet; an error when it claims to be above
// `longest`.
Result<std::optional<std::string>> take_frame(std::string& buffer, size_t longest);

}  // namespace tessera::comm
