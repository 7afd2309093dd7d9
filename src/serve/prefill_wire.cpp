#include "serve/prefill_wire.h"

#include <array>

namespace tessera::serve {

namespace {

constexpr int64_t kDecoder = 0, kWorker = 1;

template <class T>
Status send_values(Group& group, int64_t to, std::span<const T> values) {
  return values.empty() ? Status() : group.send(to, tessera::bytes_of(values));
}
template <class T>
Status receive_values(Group& group, int64_t from, std::span<T> values) {
  return values.empty() ? Status() : group.recv(from, tessera::mutable_bytes_of(values));
}

}  // namespace

Status send_order(Group& group, Command command, const PrefillJob& job) {
  const std::array<int64_t, 3> head{static_cast<int64_t>(command), std::ssize(job.tokens),
                                    std::ssize(job.salt)};
  TESSERA_RETURN_IF_ERROR(send_values<int64_t>(group, kWorker, head));
  TESSERA_RETURN_IF_ERROR(send_values<int64_t>(group, kWorker, job.tokens));
  return send_values<char>(group, kWorker, job.salt);
}

Result<PrefillOrder> receive_order(Group& group) {
  std::array<int64_t, 3> head{};
  TESSERA_RETURN_IF_ERROR(receive_values<int64_t>(group, kDecoder, head));
  PrefillOrder order{.command = static_cast<Command>(head[0]), .job = {}};
  order.job.tokens.resize(static_cast<size_t>(head[1]));
  order.job.salt.resize(static_cast<size_t>(head[2]));
  TESSERA_RETURN_IF_ERROR(receive_values<int64_t>(group, kDecoder, order.job.tokens));
  TESSERA_RETURN_IF_ERROR(receive_values<char>(group, kDecoder, order.job.salt));
  return order;
}

// Before each run: how many blocks it has.
Status send_blocks(Group& group, int64_t block_bytes, Bytes blocks) {
  const std::array<int64_t, 1> count{std::ssize(blocks) / block_bytes};
  TESSERA_RETURN_IF_ERROR(send_values<int64_t>(group, kDecoder, count));
  return send_values<std::byte>(group, kDecoder, blocks);
}

Status receive_blocks(Group& group, int64_t block_bytes, MutableBytes blocks) {
  while (!blocks.empty()) {
    std::array<int64_t, 1> count{};
    TESSERA_RETURN_IF_ERROR(receive_values<int64_t>(group, kWorker, count));
    const int64_t left = std::ssize(blocks) / block_bytes;
    if (count[0] < 1 || count[0] > left)
      return make_error(ErrorCode::data_loss, "a prefill worker sends {} blocks where {} are missing", count[0],
                        left);
    const auto bytes = static_cast<size_t>(count[0] * block_bytes);
    TESSERA_RETURN_IF_ERROR(receive_values<std::byte>(group, kWorker, blocks.first(bytes)));
    blocks = blocks.subspan(bytes);
  }
  return {};
}

}  // namespace tessera::serve
