// Reading a Hugging Face config.json: the same quantity has many names (hidden_size, n_embd, d_model), any
// field may be null, and one bad field deserves one readable error. Fields remembers the first thing wrong; the
// reader asks for error() once, at the end.
#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera {

class ConfigFields {
 public:
  using Names = std::initializer_list<const char*>;
  // `config` is a JSON object that outlives the reader.
  explicit ConfigFields(const nlohmann::json& config) : config_(config) {}

  int64_t positive(Names names);                       // required; the first name present counts
  int64_t positive_or(Names names, int64_t fallback);  // null counts as absent
  int64_t count_or(Names names, int64_t fallback);     // 0 allowed
  double number_or(const char* name, double fallback);
  bool flag_or(Names names, bool fallback);
  std::string text_or(const char* name, const std::string& fallback);
  std::optional<int64_t> token(const char* name);  // a token id, or the first of a list of ids
  // Lists of one entry per layer; empty when absent. Booleans and numbers count as integers.
  std::vector<int64_t> integers(const char* name);
  std::vector<std::string> texts(const char* name);

  bool present(const char* name) const;
  const nlohmann::json& operator[](const char* name) const;  // REQUIRES: present(name)
  void fail(const std::string& name, const std::string& why);
  void refuse(const char* name, bool unsupported, const char* why) {
    if (unsupported) fail(name, why);
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  const char* first_present(Names names) const;
  int64_t integer(const char* name, int64_t least, int64_t fallback);
  const nlohmann::json& config_;
  std::optional<Error> error_;
};

}  // namespace tessera
