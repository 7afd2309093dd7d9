#include "recsys_data/encoding.h"

#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "core/hash.h"
#include "core/nearest.h"

namespace tessera::recsys_data {
namespace {

// What a value is, for a message.
std::string shown(const RawValue& value) {
  if (const auto* text = std::get_if<std::string_view>(&value)) return fmt::format("'{}'", text->substr(0, 60));
  if (const auto* whole = std::get_if<int64_t>(&value)) return fmt::format("{}", *whole);
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  return "nothing";
}

bool is_missing(const RawValue& value) {
  const auto* text = std::get_if<std::string_view>(&value);
  return value.index() == 0 || (text != nullptr && (text->empty() || *text == "?"));
}

template <class Number>
bool parse_whole(std::string_view text, Number& number, int base = 10) {
  auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return failure == std::errc() && stop == text.data() + text.size();
}

bool parse_float(std::string_view text, float& number) {
  auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failure == std::errc() && stop == text.data() + text.size();
}

bool read_number(const RawValue& value, float& number) {
  if (const auto* text = std::get_if<std::string_view>(&value)) {
    if (!parse_float(*text, number)) return false;
  } else if (const auto* whole = std::get_if<int64_t>(&value)) {
    number = static_cast<float>(*whole);
  } else {
    number = static_cast<float>(std::get<double>(value));
  }
  return std::isfinite(number);
}

bool read_whole(const RawValue& value, int64_t& number) {
  if (const auto* text = std::get_if<std::string_view>(&value)) return parse_whole(*text, number);
  const auto* whole = std::get_if<int64_t>(&value);
  if (whole != nullptr) number = *whole;
  return whole != nullptr;
}

bool read_hex32(const RawValue& value, int64_t& number) {
  const auto* text = std::get_if<std::string_view>(&value);
  if (text == nullptr) return read_whole(value, number) && number >= 0 && number <= UINT32_MAX;
  uint32_t bits = 0;
  if (text->size() != 8 || !parse_whole(*text, bits, 16)) return false;
  number = bits;
  return true;
}

// Most counts are small, and a logarithm costs as much as parsing several fields.
const std::array<float, 4096>& small_logarithms() {
  static const auto table = [] {
    std::array<float, 4096> values{};
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::log1p(static_cast<float>(i));
    return values;
  }();
  return table;
}

}  // namespace

uint64_t id_of_text(std::string_view text) {
  return 1 + (hash64(std::as_bytes(std::span(text.data(), text.size()))) & ((uint64_t{1} << 56) - 1));
}

float log1p_of_count(int64_t count) {
  if (count <= 0) return 0;
  if (count < 4096) return small_logarithms()[static_cast<size_t>(count)];
  return std::log1p(static_cast<float>(count));
}

float encoded(const NumberEncoding& encoding, float value) {
  if (encoding.kind == NumberEncoding::Kind::plain) return value;
  return static_cast<float>((value - encoding.mean) * encoding.scale);
}

Result<float> encode(const NumberEncoding& encoding, const RawValue& value) {
  if (encoding.kind == NumberEncoding::Kind::log1p) {
    int64_t count = 0;
    if (!is_missing(value) && !read_whole(value, count))
      return invalid("got {}, expected a whole number", shown(value));
    return log1p_of_count(count);
  }
  float number = 0;
  if (!is_missing(value) && !read_number(value, number))
    return invalid("got {}, expected a finite number", shown(value));
  return encoded(encoding, number);
}

Result<uint64_t> encode(const IdEncoding& encoding, const RawValue& value) {
  using Kind = IdEncoding::Kind;
  if (is_missing(value)) return uint64_t{0};
  int64_t number = -1;
  switch (encoding.kind) {
    case Kind::text:
      if (const auto* text = std::get_if<std::string_view>(&value)) return id_of_text(*text);
      if (read_whole(value, number)) return id_of_text(fmt::format("{}", number));
      return invalid("got {}, expected a text", shown(value));
    case Kind::below:
      if (read_whole(value, number) && number >= 0 && number < encoding.cardinality)
        return static_cast<uint64_t>(number) + 1;
      return invalid("got {}, expected a whole number from 0 to {}", shown(value), encoding.cardinality - 1);
    case Kind::hex32:
      if (read_hex32(value, number)) return static_cast<uint64_t>(number) + 1;
      return invalid("got {}, expected 8 hexadecimal digits", shown(value));
    case Kind::number:
      if (read_whole(value, number) && number >= 0) return static_cast<uint64_t>(number);
      return invalid("got {}, expected a whole number of at least 0", shown(value));
  }
  return invalid("unknown kind of id");
}

const char* to_string(NumberEncoding::Kind kind) {
  using Kind = NumberEncoding::Kind;
  return kind == Kind::plain ? "plain" : kind == Kind::standard ? "standard" : "log1p";
}
const char* to_string(IdEncoding::Kind kind) {
  using Kind = IdEncoding::Kind;
  return kind == Kind::text ? "text" : kind == Kind::below ? "below" : kind == Kind::hex32 ? "hex32" : "number";
}

Result<NumberEncoding::Kind> parse_number_encoding(std::string_view text) {
  using Kind = NumberEncoding::Kind;
  for (Kind kind : {Kind::plain, Kind::standard, Kind::log1p})
    if (text == to_string(kind)) return kind;
  return invalid("got '{}', expected plain, standard or log1p{}", text,
                 did_you_mean(text, {"plain", "standard", "log1p"}));
}
Result<IdEncoding::Kind> parse_id_encoding(std::string_view text) {
  using Kind = IdEncoding::Kind;
  for (Kind kind : {Kind::text, Kind::below, Kind::hex32, Kind::number})
    if (text == to_string(kind)) return kind;
  return invalid("got '{}', expected text, below, hex32 or number{}", text,
                 did_you_mean(text, {"text", "below", "hex32", "number"}));
}

}  // namespace tessera::recsys_data
