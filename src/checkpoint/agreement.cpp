#include "checkpoint/agreement.h"

#include <algorithm>
#include <cstring>

namespace tessera::checkpoint {
namespace {

// One rank's outcome at a fixed size, so that all can be gathered at once.
struct Verdict {
  int64_t failed = 0, code = 0;
  char text[1008] = {};
};

template <size_t size>
void put_text(const std::string& text, char (&out)[size]) {
  std::memcpy(out, text.data(), std::min(text.size(), size - 1));
}

}  // namespace

Status agree(Group& group, const Status& mine) {
  Verdict verdict;
  if (!mine.ok()) {
    verdict.failed = 1;
    verdict.code = static_cast<int64_t>(mine.error().code);
    put_text(mine.error().message, verdict.text);
  }
  std::vector<Verdict> all(static_cast<size_t>(group.size()));
  TESSERA_RETURN_IF_ERROR(group.all_gather(bytes_of(std::span<const Verdict>(&verdict, 1)),
                                           mutable_bytes_of(std::span<Verdict>(all))));
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].failed == 0) continue;
    Error error{static_cast<ErrorCode>(all[rank].code), all[rank].text};
    if (group.size() == 1) return error;
    return error.within(fmt::format("rank {}", rank));
  }
  return {};
}

Result<std::vector<std::string>> gather_texts(Group& group, const std::string& mine) {
  auto ranks = static_cast<size_t>(group.size());
  int64_t size = static_cast<int64_t>(mine.size());
  std::vector<int64_t> sizes(ranks);
  TESSERA_RETURN_IF_ERROR(group.all_gather(bytes_of(std::span<const int64_t>(&size, 1)),
                                           mutable_bytes_of(std::span<int64_t>(sizes))));
  std::vector<std::string> texts(group.rank() == 0 ? ranks : 0);
  std::vector<Bytes> out(ranks);
  std::vector<MutableBytes> in(ranks);
  out[0] = bytes_of(std::span<const char>(mine));
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    texts[rank].resize(static_cast<size_t>(sizes[rank]));
    in[rank] = mutable_bytes_of(std::span<char>(texts[rank]));
  }
  TESSERA_RETURN_IF_ERROR(group.all_to_all(out, in));
  return texts;
}

Result<std::string> share_text(Group& group, const std::string& text) {
  char buffer[208] = {};
  if (group.rank() == 0) put_text(text, buffer);
  TESSERA_RETURN_IF_ERROR(group.broadcast(0, mutable_bytes_of(std::span<char>(buffer))));
  return std::string(buffer);
}

}  // namespace tessera::checkpoint
