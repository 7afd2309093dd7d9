#include "http/api_keys.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/nearest.h"
#include "core/toml.h"

namespace tessera {

using nlohmann::json;

namespace {

// One [[key]] table, read field by field; the first error stays.
class KeyReader {
 public:
  KeyReader(const json& table, std::string where) : table_(table), where_(std::move(where)) {}

  std::string text(const std::string& name) {
    const json* value = find(name);
    if (value && !value->is_string()) refuse("'{}' must be a string, not {}", name, kind_name(*value));
    return value && value->is_string() ? value->get<std::string>() : "";
  }

  int64_t integer(const std::string& name, bool may_be_negative) {
    const json* value = find(name);
    if (!value) return 0;
    bool fits = value->is_number_integer() && (may_be_negative || value->get<int64_t>() > 0);
    if (!fits)
      refuse("'{}' must be {}, not {}", name, may_be_negative ? "an integer" : "an integer above 0",
             value->dump());
    return fits ? value->get<int64_t>() : 0;
  }

  bool boolean(const std::string& name) {
    const json* value = find(name);
    if (value && !value->is_boolean()) refuse("'{}' must be true or false, not {}", name, value->dump());
    return value && value->is_boolean() && value->get<bool>();
  }

  std::vector<std::string> texts(const std::string& name) {
    const json* value = find(name);
    if (!value) return {};
    bool fits = value->is_array() && !value->empty() &&
                std::ranges::all_of(*value, [](const json& item) { return item.is_string(); });
    if (!fits) refuse("'{}' must be a list of names, such as [\"llama-8b\"]", name);
    return fits ? value->get<std::vector<std::string>>() : std::vector<std::string>();
  }

  Sha256 digest() {
    std::string key = text("key"), digits = text("sha256");
    if (key.empty() == digits.empty()) refuse("give either 'key' or 'sha256'");
    if (digits.empty()) return sha256(key);
    auto digest = parse_sha256(digits);
    if (!digest) refuse("'sha256' must be 64 hexadecimal digits, as `printf %s \"$KEY\" | sha256sum` prints");
    return digest.value_or(Sha256{});
  }

  Status finish() {
    for (const auto& [name, value] : table_.items())
      if (std::ranges::find(known_, name) == known_.end())
        return invalid("{}: unknown entry '{}'{}", where_, name, did_you_mean(name, known_));
    return error_;
  }

  template <class... Args>
  void refuse(fmt::format_string<Args...> format, Args&&... args) {
    if (error_.ok()) error_ = invalid("{}: {}", where_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const json* find(const std::string& name) {
    known_.push_back(name);
    auto found = table_.find(name);
    return found == table_.end() ? nullptr : &*found;
  }

  const json& table_;
  std::string where_;
  std::vector<std::string> known_;
  Status error_;
};

}  // namespace

bool Caller::may_use(std::string_view model) const {
  return models.empty() || std::ranges::find(models, model) != models.end();
}

Result<ApiKeys> ApiKeys::load(const std::filesystem::path& file) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(file));
  return parse(text, file.string());
}

Result<ApiKeys> ApiKeys::parse(std::string_view toml, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(toml, name));
  auto tables = document.root.find("key");
  if (document.root.size() != 1 || tables == document.root.end() || !tables->is_array() || tables->empty())
    return invalid("{}: expected [[key]] tables and nothing else; see --help for an example", name);
  ApiKeys keys;
  for (const json& table : *tables) {
    std::string where = fmt::format("{}: [[key]] number {}", name, keys.size() + 1);
    if (!table.is_object()) return invalid("{} is no table", where);
    KeyReader reader(table, where);
    Caller caller{.tenant = reader.text("tenant")};
    Sha256 digest = reader.digest();
    QuotaLimits limits{.requests_per_minute = reader.integer("requests_per_minute", false),
                       .tokens_per_minute = reader.integer("tokens_per_minute", false)};
    caller.quota = std::make_shared<Quota>(limits);
    caller.models = reader.texts("models");
    caller.most_urgent_priority = reader.integer("priority", true);
    caller.admin = reader.boolean("admin");
    if (caller.tenant.empty()) reader.refuse("'tenant' is missing: the name of who owns the key");
    for (const Entry& other : keys.keys_)
      if (other.digest == digest) reader.refuse("the key is listed before");
    TESSERA_RETURN_IF_ERROR(reader.finish());
    keys.keys_.push_back({digest, std::make_shared<const Caller>(std::move(caller))});
  }
  return keys;
}

std::shared_ptr<const Caller> ApiKeys::find(std::string_view key) const {
  Sha256 digest = sha256(key);
  std::shared_ptr<const Caller> found;
  for (const Entry& entry : keys_)
    if (equal_in_constant_time(entry.digest, digest)) found = entry.caller;
  return found;
}

}  // namespace tessera
