#include "comm/message.h"

#include <array>

namespace tessera::comm {

const char* to_string(Kind kind) {
  constexpr std::array kNames = {"send",           "barrier",        "broadcast", "all_gather", "all_to_all",
                                 "all_reduce_sum", "all_reduce_max", "recv",      "goodbye"};
  size_t index = static_cast<size_t>(kind) - 1;
  return index < kNames.size() ? kNames[index] : "an unknown operation";
}

std::string describe(const Operation& operation) {
  std::string text = fmt::format("{} #{}", to_string(operation.kind), operation.sequence);
  if (operation.bytes > 0) text += fmt::format(" of {} bytes", operation.bytes);
  return text;
}

bool matches(const Header& came, const Header& expected) {
  return came.magic == Header::kMagic && came.kind == expected.kind && came.step == expected.step &&
         came.sequence == expected.sequence && came.bytes == expected.bytes;
}

Error mismatch(const std::string& peer, const Header& came, const std::string& me, const Header& expected) {
  if (came.magic != Header::kMagic) {
    return make_error(ErrorCode::data_loss, "{} sent bytes that are no message", peer);
  }
  if (came.kind == Kind::goodbye) {
    return make_error(ErrorCode::unavailable, "{} has left the group and sent nothing more", peer);
  }
  Kind mine = expected.kind == Kind::send ? Kind::recv : expected.kind;
  return invalid(
      "{} runs {} (message of {} bytes, round {}), but {} runs {} (expects {} bytes, round {}); all "
      "ranks of a group must run the same operations in the same order with the same sizes",
      peer, describe({came.kind, came.sequence, came.total_bytes}), came.bytes, came.step, me,
      describe({mine, expected.sequence, expected.total_bytes}), expected.bytes, expected.step);
}

}  // namespace tessera::comm
