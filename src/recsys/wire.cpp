#include "recsys/wire.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "recsys/row_kernels.h"

namespace tessera::recsys {
namespace {

constexpr size_t kIdBlock = 128, kValueBlock = 32;

template <class T>
void append(std::vector<std::byte>& out, const T& value) {
  const std::byte* bytes = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof value);
}
template <class T>
bool take(std::span<const std::byte>& in, T& value) {
  if (in.size() < sizeof value) return false;
  std::memcpy(&value, in.data(), sizeof value);
  in = in.subspan(sizeof value);
  return true;
}
Error damaged(const char* what) {
  return make_error(ErrorCode::data_loss, "packed {} are cut short or were not packed by this version", what);
}

size_t bytes_of_block(size_t count, unsigned width) {
  return (count * width + 7) / 8;
}

void pack_block(std::span<const uint64_t> values, std::vector<std::byte>& out) {
  uint64_t all = 0;
  for (uint64_t value : values) all |= value;
  unsigned width = static_cast<unsigned>(std::bit_width(all));
  append(out, static_cast<uint8_t>(width));
  size_t start = out.size();
  out.resize(start + bytes_of_block(values.size(), width));
  size_t bit = 0;
  for (uint64_t value : values) {
    for (unsigned done = 0; done < width;) {
      unsigned shift = static_cast<unsigned>(bit % 8), fits = std::min(8 - shift, width - done);
      uint64_t part = (value >> done) & ((uint64_t{1} << fits) - 1);
      out[start + bit / 8] |= static_cast<std::byte>(part << shift);
      done += fits;
      bit += fits;
    }
  }
}

uint64_t bits_at(std::span<const std::byte> bytes, size_t bit, unsigned width) {
  uint64_t value = 0;
  for (unsigned done = 0; done < width;) {
    unsigned shift = static_cast<unsigned>(bit % 8), fits = std::min(8 - shift, width - done);
    uint64_t part = (static_cast<uint64_t>(bytes[bit / 8]) >> shift) & ((uint64_t{1} << fits) - 1);
    value |= part << done;
    done += fits;
    bit += fits;
  }
  return value;
}

// Bytes of `count` values of that type.
size_t packed_bytes(RowType type, size_t count) {
  if (type == RowType::f32) return count * 4;
  if (type != RowType::i8) return count * 2;
  return count + (count + kValueBlock - 1) / kValueBlock * sizeof(float);
}

}  // namespace

SortedIds sort_ids(std::span<const uint64_t> ids) {
  SortedIds sorted;
  std::vector<uint32_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return ids[a] < ids[b]; });
  sorted.places.resize(ids.size());
  for (uint32_t at : order) {
    if (sorted.ids.empty() || sorted.ids.back() != ids[at]) sorted.ids.push_back(ids[at]);
    sorted.places[at] = static_cast<uint32_t>(sorted.ids.size() - 1);
  }
  return sorted;
}

void pack_ids(std::span<const uint64_t> ids, std::vector<std::byte>& out) {
  append(out, static_cast<uint32_t>(ids.size()));
  if (ids.empty()) return;
  append(out, ids[0]);
  std::vector<uint64_t> steps;
  for (size_t first = 1; first < ids.size(); first += kIdBlock) {
    steps.clear();
    for (size_t i = first; i < std::min(first + kIdBlock, ids.size()); ++i) {
      TESSERA_REQUIRE(ids[i] > ids[i - 1], "ids must ascend: {} after {}", ids[i], ids[i - 1]);
      steps.push_back(ids[i] - ids[i - 1] - 1);
    }
    pack_block(steps, out);
  }
}

Result<std::vector<uint64_t>> unpack_ids(std::span<const std::byte>& in) {
  uint32_t count = 0;
  uint64_t id = 0;
  if (!take(in, count)) return damaged("ids");
  std::vector<uint64_t> ids;
  if (count == 0) return ids;
  if (!take(in, id)) return damaged("ids");
  // A block of any number of ids takes a byte at least: no message makes us ask for memory it does not have.
  if ((count - 1) / kIdBlock > in.size()) return damaged("ids");
  ids.reserve(count);
  ids.push_back(id);
  while (ids.size() < count) {
    size_t block = std::min(kIdBlock, count - ids.size());
    uint8_t width = 0;
    if (!take(in, width) || width > 64 || in.size() < bytes_of_block(block, width)) return damaged("ids");
    for (size_t i = 0; i < block; ++i) {
      uint64_t next = id + bits_at(in, i * width, width) + 1;
      if (next <= id) return damaged("ids");
      ids.push_back(id = next);
    }
    in = in.subspan(bytes_of_block(block, width));
  }
  return ids;
}

void pack_rows(std::span<const float> values, const WireOptions& options, std::vector<std::byte>& out) {
  append(out, static_cast<uint8_t>(options.type));
  append(out, static_cast<uint32_t>(values.size()));
  size_t start = out.size(),
         block = options.type == RowType::i8 ? kValueBlock : std::max<size_t>(1, values.size());
  out.resize(start + packed_bytes(options.type, values.size()));
  std::byte* to = out.data() + start;
  for (size_t first = 0; first < values.size(); first += block) {
    size_t count = std::min(block, values.size() - first);
    row_kernels().store[static_cast<size_t>(options.type)](&values[first], static_cast<int64_t>(count), to, 0);
    to += options.type == RowType::i8 ? count + sizeof(float) : packed_bytes(options.type, count);
  }
}

Result<std::vector<float>> unpack_rows(std::span<const std::byte>& in) {
  uint8_t type = 0;
  uint32_t count = 0;
  if (!take(in, type) || !take(in, count) || type > static_cast<uint8_t>(RowType::i8)) return damaged("rows");
  RowType row_type = static_cast<RowType>(type);
  size_t bytes = packed_bytes(row_type, count);
  if (in.size() < bytes) return damaged("rows");
  std::vector<float> values(count);
  size_t block = row_type == RowType::i8 ? kValueBlock : std::max<size_t>(1, count);
  const std::byte* from = in.data();
  for (size_t first = 0; first < count; first += block) {
    size_t here = std::min<size_t>(block, count - first);
    row_kernels().load[type](from, static_cast<int64_t>(here), &values[first]);
    from += row_type == RowType::i8 ? here + sizeof(float) : packed_bytes(row_type, here);
  }
  in = in.subspan(bytes);
  return values;
}

void ErrorFeedback::pack(std::span<const uint64_t> ids, std::span<const float> gradients,
                         const WireOptions& options, std::vector<std::byte>& out) {
  TESSERA_REQUIRE(gradients.size() == ids.size() * dim_, "{} floats for {} gradients of {}", gradients.size(),
                  ids.size(), dim_);
  ++packs_;
  std::vector<float> due(gradients.begin(), gradients.end());
  for (size_t i = 0; i < ids.size(); ++i) {
    auto debt = debts_.find(ids[i]);
    if (debt == debts_.end()) continue;
    row_kernels().add(debt->second.values.data(), static_cast<int64_t>(dim_), &due[i * dim_]);
  }
  size_t start = out.size();
  pack_rows(due, options, out);
  std::span<const std::byte> packed = std::span<const std::byte>(out).subspan(start);
  std::vector<float> sent = *unpack_rows(packed);
  for (size_t i = 0; i < ids.size(); ++i) {
    Debt& debt = debts_[ids[i]];
    debt.pack = packs_;
    debt.values.resize(dim_);
    for (size_t j = 0; j < dim_; ++j) {
      float rest = due[i * dim_ + j] - sent[i * dim_ + j];
      debt.values[j] = rest - rest == 0 ? rest : 0.0f;  // NaN and infinity are not carried on
    }
  }
  if (debts_.size() > most_ids_) make_room();
}

void ErrorFeedback::make_room() {
  std::vector<uint64_t> ages;
  for (const auto& [id, debt] : debts_) ages.push_back(debt.pack);
  auto middle = ages.begin() + static_cast<std::ptrdiff_t>(ages.size() / 2);
  std::nth_element(ages.begin(), middle, ages.end());
  std::erase_if(debts_, [oldest_kept = *middle](const auto& entry) { return entry.second.pack < oldest_kept; });
}

std::vector<float> ErrorFeedback::owed(uint64_t id) const {
  auto debt = debts_.find(id);
  return debt == debts_.end() ? std::vector<float>(dim_, 0.0f) : debt->second.values;
}

}  // namespace tessera::recsys
