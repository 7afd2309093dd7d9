#include "serve/kv_tiers.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/file.h"

namespace tessera::serve {

using at::Tensor;
using batching::BlockId;
using batching::KvMove;

namespace {

constexpr int64_t kHost = 1, kDisk = 2;

// A block is one run of bytes in each layer.
void copy_block(const KvCache& from, BlockId source, KvCache& to, BlockId target) {
  for (size_t l = 0; l < from.layers.size(); ++l)
    std::ranges::copy(from.layers[l].block(source), to.layers[l].block(target).begin());
}

std::span<std::byte> bytes_of(Tensor& staging) {
  return {static_cast<std::byte*>(staging.mutable_data_ptr()), staging.nbytes()};
}

}  // namespace

int64_t block_bytes(const KvCache& cache) {
  int64_t bytes = 0;
  for (const kernels::KvPages& layer : cache.layers) bytes += layer.shape().block_bytes();
  return bytes;
}

void read_block(const KvCache& cache, BlockId block, std::span<std::byte> bytes) {
  auto to = bytes.begin();
  for (const kernels::KvPages& layer : cache.layers) to = std::ranges::copy(layer.block(block), to).out;
}

void write_block(std::span<const std::byte> bytes, KvCache& cache, BlockId block) {
  for (const kernels::KvPages& layer : cache.layers) {
    const auto to = layer.block(block);
    std::ranges::copy(bytes.first(to.size()), to.begin());
    bytes = bytes.subspan(to.size());
  }
}

bool touches_disk(std::span<const KvMove> moves) {
  return std::any_of(moves.begin(), moves.end(),
                     [](const KvMove& move) { return move.from_tier == kDisk || move.to_tier == kDisk; });
}

Result<KvTiers> KvTiers::make(const KvCache& cache, const Options& options) {
  KvTiers tiers;
  try {
    tiers.host_.block_tokens = cache.block_tokens;
    for (const kernels::KvPages& layer : cache.layers)
      tiers.host_.layers.emplace_back(layer.shape(), options.host_blocks);
    tiers.staging_ = at::empty({block_bytes(cache)}, at::TensorOptions().dtype(at::kByte));
  } catch (const std::exception&) {
    return make_error(ErrorCode::resource_exhausted,
                      "no host memory for {} blocks of keys and values; use a smaller --kv-host-tokens",
                      options.host_blocks);
  }
  if (options.disk_blocks > 0) tiers.disk_ = tiers.open_file(options);
  return tiers;
}

KvTiers::KvTiers(KvTiers&& other) noexcept
    : host_(std::move(other.host_)),
      staging_(std::move(other.staging_)),
      file_(std::exchange(other.file_, -1)),
      disk_(std::move(other.disk_)) {}

KvTiers::~KvTiers() {
  if (file_ >= 0) ::close(file_);
}

Status KvTiers::open_file(const Options& options) {
  std::filesystem::path folder =
      options.folder.empty() ? std::filesystem::temp_directory_path() : options.folder;
  file_ = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file_ < 0) return system_error("make a file for keys and values in", folder, errno);
  const auto bytes = static_cast<off_t>(options.disk_blocks * static_cast<int64_t>(staging_.nbytes()));
  const int failed = ::posix_fallocate(file_, 0, bytes);
  if (failed == 0) return {};
  return make_error(ErrorCode::resource_exhausted,
                    "no room for {:.2f} GiB of keys and values in {}: {}; use a smaller --kv-disk-tokens or "
                    "another --kv-disk-dir",
                    static_cast<double>(bytes) / (1 << 30), folder.string(), errno_text(failed));
}

Status KvTiers::move(std::span<const KvMove> moves, KvCache& cache) {
  for (const KvMove& move : moves) TESSERA_RETURN_IF_ERROR(move_one(move, cache));
  return {};
}

Status KvTiers::move_one(const KvMove& move, KvCache& cache) {
  KvCache& source = move.from_tier == kHost ? host_ : cache;
  KvCache& target = move.to_tier == kHost ? host_ : cache;
  if (move.from_tier != kDisk && move.to_tier != kDisk) {
    copy_block(source, move.from, target, move.to);
    return {};
  }
  TESSERA_RETURN_IF_ERROR(disk_);
  if (move.from_tier == kDisk)
    disk_ = read(move.from);
  else
    read_block(source, move.from, bytes_of(staging_));
  if (disk_.ok() && move.to_tier == kDisk) disk_ = write(move.to);
  if (disk_.ok() && move.to_tier != kDisk) write_block(bytes_of(staging_), target, move.to);
  return disk_;
}

Status KvTiers::read(BlockId block) {
  auto* bytes = static_cast<char*>(staging_.mutable_data_ptr());
  const auto size = static_cast<off_t>(staging_.nbytes());
  for (off_t done = 0; done < size;) {
    const ssize_t got = ::pread(file_, bytes + done, static_cast<size_t>(size - done), block * size + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return make_error(ErrorCode::data_loss, "cannot read keys and values back from disk: {}",
                        got < 0 ? errno_text(errno) : "the file is too short");
    done += got;
  }
  return {};
}

Status KvTiers::write(BlockId block) {
  const auto* bytes = static_cast<const char*>(staging_.const_data_ptr());
  const auto size = static_cast<off_t>(staging_.nbytes());
  for (off_t done = 0; done < size;) {
    const ssize_t put = ::pwrite(file_, bytes + done, static_cast<size_t>(size - done), block * size + done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0)
      return make_error(ErrorCode::resource_exhausted, "cannot write keys and values to disk: {}",
                        errno_text(errno));
    done += put;
  }
  return {};
}

}  // namespace tessera::serve
