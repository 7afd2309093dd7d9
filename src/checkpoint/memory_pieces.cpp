#include "checkpoint/memory_pieces.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "checkpoint/boxes.h"
#include "checkpoint/guard.h"
#include "checkpoint/state_kind.h"
#include "core/hash.h"

namespace tessera::checkpoint {
namespace {

constexpr std::string_view kMagic = "TESSPCS1";
constexpr size_t kHashedFrom = 16, kFixedBytes = 24;  // magic, hash, length of the header

Error torn_pieces(std::string_view what) {
  return make_error(ErrorCode::data_loss, "bytes of pieces: {}; take the snapshot of another rank", what);
}

const std::byte* data_of(const at::Tensor& values) {
  return static_cast<const std::byte*>(values.const_data_ptr());
}

std::string header_text(std::span<const Piece> pieces, std::string_view note) {
  nlohmann::json list = nlohmann::json::array();
  for (const Piece& piece : pieces)
    list.push_back({{"tensor", piece.tensor},
                    {"state", to_string(piece.kind)},
                    {"offset", piece.box.offset},
                    {"size", piece.box.size},
                    {"primary", piece.primary}});
  std::string text = nlohmann::json{{"note", note}, {"pieces", std::move(list)}}.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

int64_t value_bytes(std::span<const Piece> pieces) {
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.box.elements() * static_cast<int64_t>(sizeof(float));
  return bytes;
}

uint64_t load_u64(std::span<const std::byte> bytes, size_t at) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

Result<Piece> parse_piece(const nlohmann::json& entry) {
  Piece piece;
  piece.tensor = entry.at("tensor").get<std::string>();
  TESSERA_ASSIGN_OR_RETURN(piece.kind, parse_state_kind(entry.at("state").get<std::string>()));
  piece.box.offset = entry.at("offset").get<std::vector<int64_t>>();
  piece.box.size = entry.at("size").get<std::vector<int64_t>>();
  piece.primary = entry.at("primary").get<bool>();
  return piece;
}

Result<ParsedPieces> parse_or_throw(std::span<const std::byte> bytes) {
  if (bytes.size() < kFixedBytes || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    return torn_pieces(fmt::format("{} bytes without the mark {}", bytes.size(), kMagic));
  uint64_t expected = load_u64(bytes, kMagic.size()), got = hash64(bytes.subspan(kHashedFrom));
  if (expected != got) return torn_pieces(fmt::format("hash is {} but should be {}", hex(got), hex(expected)));
  auto rest = bytes.subspan(kFixedBytes);
  uint64_t header_bytes = load_u64(bytes, kHashedFrom);
  if (header_bytes > rest.size()) return torn_pieces("the header is longer than the bytes");
  const char* text = reinterpret_cast<const char*>(rest.data());
  auto header = nlohmann::json::parse(text, text + header_bytes);
  rest = rest.subspan(header_bytes);
  ParsedPieces parsed{.note = header.at("note").get<std::string>()};
  for (const auto& entry : header.at("pieces")) {
    TESSERA_ASSIGN_OR_RETURN(Piece piece, parse_piece(entry));
    size_t size = static_cast<size_t>(piece.box.elements()) * sizeof(float);
    if (size > rest.size()) return torn_pieces(fmt::format("values of {} are cut off", piece.tensor));
    piece.values = at::empty({piece.box.elements()}, at::kFloat);
    std::memcpy(piece.values.mutable_data_ptr(), rest.data(), size);
    rest = rest.subspan(size);
    TESSERA_RETURN_IF_ERROR(parsed.pieces.add(std::move(piece)));
  }
  if (!rest.empty()) return torn_pieces(fmt::format("{} bytes too many", rest.size()));
  return parsed;
}

}  // namespace

Status check_piece(const Piece& piece) {
  const at::Tensor& values = piece.values;
  bool fits = values.defined() && values.scalar_type() == at::kFloat && values.is_contiguous() &&
              values.device().is_cpu() && values.numel() == piece.box.elements();
  if (fits) return {};
  return invalid("piece {} of tensor {}: its values are not {} contiguous float32 values on the CPU",
                 to_string(piece.kind), piece.tensor, piece.box.elements());
}

Status prepare_output(const Extent& box, at::Tensor& out) {
  if (!out.defined()) out = at::empty({box.elements()}, at::kFloat);
  if (out.scalar_type() == at::kFloat && out.is_contiguous() && out.numel() == box.elements()) return {};
  return invalid("a box of {} elements cannot be read into a tensor of {} elements of {}", box.elements(),
                 out.numel(), c10::toString(out.scalar_type()));
}

Result<MemoryPieces> MemoryPieces::copy_of(std::span<const Piece> pieces) {
  return guarded("copy of pieces", [&]() -> Result<MemoryPieces> {
    MemoryPieces copy;
    for (Piece piece : pieces) {
      TESSERA_RETURN_IF_ERROR(check_piece(piece));
      piece.values = piece.values.clone();
      TESSERA_RETURN_IF_ERROR(copy.add(std::move(piece)));
    }
    return copy;
  });
}

Status MemoryPieces::add(Piece piece) {
  TESSERA_RETURN_IF_ERROR(check_piece(piece));
  places_[{piece.tensor, piece.kind}].push_back(pieces_.size());
  pieces_.push_back(std::move(piece));
  return {};
}

Status MemoryPieces::read(const std::string& tensor, StateKind kind, const Extent& box, at::Tensor& out) {
  return guarded(tensor, [&]() -> Status {
    TESSERA_RETURN_IF_ERROR(prepare_output(box, out));
    auto* target = static_cast<std::byte*>(out.mutable_data_ptr());
    std::vector<Extent> missing;
    if (box.elements() > 0) missing.push_back(box);
    auto found = places_.find({tensor, kind});
    if (found == places_.end())
      return make_error(ErrorCode::not_found, "no piece of {} of tensor {} is in memory", to_string(kind),
                        tensor);
    for (size_t place : found->second) {
      const Piece& piece = pieces_[place];
      std::vector<Extent> still;
      for (const Extent& part : missing) {
        auto common = intersection(part, piece.box);
        if (common) copy_part(data_of(piece.values), piece.box, target, box, *common, sizeof(float));
        for (Extent& rest : difference(part, piece.box)) still.push_back(std::move(rest));
      }
      missing = std::move(still);
      if (missing.empty()) return {};
    }
    if (missing.empty()) return {};
    return make_error(ErrorCode::not_found, "{} of tensor {}: {} are in no piece in memory", to_string(kind),
                      tensor, describe(missing.front()));
  });
}

int64_t MemoryPieces::bytes() const {
  return value_bytes(pieces_);
}

int64_t serialised_bytes(std::span<const Piece> pieces, std::string_view note) {
  return static_cast<int64_t>(kFixedBytes + header_text(pieces, note).size()) + value_bytes(pieces);
}

Status serialise_pieces(std::span<const Piece> pieces, std::string_view note, std::span<std::byte> out) {
  for (const Piece& piece : pieces) TESSERA_RETURN_IF_ERROR(check_piece(piece));
  std::string header = header_text(pieces, note);
  size_t needed = kFixedBytes + header.size() + static_cast<size_t>(value_bytes(pieces));
  if (out.size() != needed) return invalid("pieces need {} bytes but the buffer has {}", needed, out.size());
  std::byte* at = out.data();
  auto put = [&](const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(at, from, bytes);
    at += bytes;
  };
  uint64_t header_bytes = header.size(), hash = 0;
  put(kMagic.data(), kMagic.size());
  put(&hash, sizeof hash);
  put(&header_bytes, sizeof header_bytes);
  put(header.data(), header.size());
  for (const Piece& piece : pieces)
    put(data_of(piece.values), static_cast<size_t>(piece.box.elements()) * sizeof(float));
  hash = hash64(out.subspan(kHashedFrom));
  std::memcpy(out.data() + kMagic.size(), &hash, sizeof hash);
  return {};
}

Result<std::vector<std::byte>> serialise_pieces(std::span<const Piece> pieces, std::string_view note) {
  return guarded("bytes of pieces", [&]() -> Result<std::vector<std::byte>> {
    std::vector<std::byte> out(static_cast<size_t>(serialised_bytes(pieces, note)));
    TESSERA_RETURN_IF_ERROR(serialise_pieces(pieces, note, out));
    return out;
  });
}

Result<ParsedPieces> parse_pieces(std::span<const std::byte> bytes) {
  return guarded("bytes of pieces", [&] { return parse_or_throw(bytes); });
}

}  // namespace tessera::checkpoint
