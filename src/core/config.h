// A run has dozens of options, each owned by the part that uses it. Config binds names to the fields of those
// structs: the defaults stay in the declarations, a TOML file and then `key=value` overrides change them, and
// every value knows where it came from.
//
//   Config config;
//   config.bind("optimizer.learning_rate", &options.learning_rate, "peak learning rate");
//   config.bind("precision", &work.precision, "float32 or bf16", parse_precision, to_string);
//   TESSERA_RETURN_IF_ERROR(config.load_file(path));
//   TESSERA_RETURN_IF_ERROR(config.set("optimizer.learning_rate=3e-4"));
//   std::fputs(config.explain().c_str(), stdout);
//
// Names are dotted paths; in a file, `[optimizer]` with `learning_rate = ...`. Later sources win. Errors name
// file and line or the command line, what stands there and what was expected; an unknown key offers the nearest
// known one. After an error some fields may have changed.
// Fields must outlive the Config. Threads: one.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tessera {

struct TomlDocument;

class Config {
 public:
  void bind(std::string key, int64_t* field, std::string help);
  void bind(std::string key, uint64_t* field, std::string help);  // refuses negative values
  void bind(std::string key, int* field, std::string help);
  void bind(std::string key, double* field, std::string help);
  void bind(std::string key, bool* field, std::string help);
  void bind(std::string key, std::string* field, std::string help);
  void bind(std::string key, std::vector<std::string>* field, std::string help);  // on the command line: a,b,c

  // A value with a text form: an enum, a Layout. A table in the file is handed to `parse` as "key=value,..."
  // (lists joined by '-'), so `layout = "tp=2"` and `[layout]` with `tp = 2` mean the same.
  template <class T, class Parse, class Print>
  void bind(std::string key, T* field, std::string help, Parse parse, Print print);

  // A table whose keys are its owner's business, such as a Hugging Face config; overrides reach into it with
  // dotted paths. Merged key by key.
  void bind_table(std::string key, nlohmann::json* field, std::string help);

  Status load_file(const std::filesystem::path& path);
  Status load_text(std::string_view text, std::string name);

  Status set(std::string_view assignment);  // "a.b=value": a TOML value, or plain text for strings
  Status set_all(const std::vector<std::string>& assignments);

  // Every value as one line of TOML, "key = value  # source: help", sections together; reads back to the same.
  std::string explain() const;
  // "default", "FILE:LINE" or "command line". REQUIRES: the key is bound.
  std::string source(const std::string& key) const;

 private:
  struct Binding {
    std::string help;
    bool is_table = false, is_text = false;  // is_text: an override is taken as it stands, without quotes
    std::function<Status(const nlohmann::json&)> assign;
    std::function<nlohmann::json()> read;
  };
  void add(std::string key, Binding binding);
  template <class T>
  void bind_value(std::string key, T* field, std::string help);
  void bind_parsed(std::string key, std::string help, std::function<Status(std::string_view)> assign,
                   std::function<std::string()> print);
  Status load_table(const nlohmann::json& table, const std::string& path, const TomlDocument& document);
  Status assign(const std::string& key, const nlohmann::json& value, const std::string& where);
  const std::string* table_above(const std::string& key) const;
  Error unknown_key(const std::string& key, const std::string& where) const;

  std::map<std::string, Binding> bindings_;
  std::vector<std::string> order_;              // keys as bound
  std::map<std::string, std::string> sources_;  // of the keys that were set
};

template <class T, class Parse, class Print>
void Config::bind(std::string key, T* field, std::string help, Parse parse, Print print) {
  auto assign_text = [field, parse](std::string_view text) -> Status {
    auto parsed = parse(text);
    if (!parsed.ok()) return parsed.error();
    *field = *std::move(parsed);
    return {};
  };
  bind_parsed(std::move(key), std::move(help), assign_text,
              [field, print] { return std::string(print(*field)); });
}

}  // namespace tessera
