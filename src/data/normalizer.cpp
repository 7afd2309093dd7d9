#include "data/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "data/utf8.h"

namespace tessera::data {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string normal_form(std::string_view text, int options) {
  utf8proc_uint8_t* result = nullptr;
  utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &result,
                                       static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  if (size < 0) return std::string(text);
  std::string out(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
  std::free(result);
  return out;
}

// Normalises the well-formed parts and keeps the others.
std::string normalize(std::string_view text, int options) {
  if (is_ascii(text)) return std::string(text);
  std::string out;
  while (!text.empty()) {
    size_t valid = utf8_valid_prefix(text);
    out += normal_form(text.substr(0, valid), options);
    text.remove_prefix(valid);
    while (!text.empty() && utf8_length(text) == 0) {
      out += text.front();
      text.remove_prefix(1);
    }
  }
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t at = 0;
  for (size_t hit; (hit = text.find(from, at)) != std::string_view::npos; at = hit + from.size())
    out.append(text.substr(at, hit - at)).append(to);
  return out.append(text.substr(at));
}

}  // namespace

Result<Normalizer> Normalizer::parse(const nlohmann::json& description) {
  Normalizer normalizer;
  if (!description.is_null()) TESSERA_RETURN_IF_ERROR(normalizer.add(description));
  return normalizer;
}

Status Normalizer::add(const nlohmann::json& description) {
  auto type = description.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const auto& part : description.at("normalizers")) TESSERA_RETURN_IF_ERROR(add(part));
    return {};
  }
  constexpr std::pair<std::string_view, Kind> kForms[] = {
      {"NFC", Kind::nfc}, {"NFD", Kind::nfd}, {"NFKC", Kind::nfkc}, {"NFKD", Kind::nfkd}};
  for (auto [name, kind] : kForms) {
    if (type != name) continue;
    steps_.push_back({kind, "", ""});
    return {};
  }
  if (type == "Prepend") {
    steps_.push_back({Kind::prepend, "", description.at("prepend").get<std::string>()});
    return {};
  }
  if (type == "Replace" && description.at("pattern").contains("String")) {
    auto from = description.at("pattern").at("String").get<std::string>();
    if (from.empty()) return invalid("normalizer Replace has an empty pattern");
    steps_.push_back({Kind::replace, from, description.at("content").get<std::string>()});
    return {};
  }
  return invalid(
      "normalizer '{}' is not supported (known: NFC, NFD, NFKC, NFKD, Replace of a string, Prepend, "
      "Sequence)",
      type);
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) out = apply(step, out);
  return out;
}

std::string Normalizer::apply(const Step& step, std::string_view text) {
  switch (step.kind) {
    case Kind::nfc:
      return normalize(text, UTF8PROC_COMPOSE);
    case Kind::nfd:
      return normalize(text, UTF8PROC_DECOMPOSE);
    case Kind::nfkc:
      return normalize(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case Kind::nfkd:
      return normalize(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    case Kind::replace:
      return replace_all(text, step.from, step.to);
    case Kind::prepend:
      return text.empty() ? std::string() : step.to + std::string(text);
  }
  return std::string(text);
}

}  // namespace tessera::data
