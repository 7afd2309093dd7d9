// The keys that a server accepts, from a TOML file:
//
//   [[key]]
//   sha256 = "9f86d0..."          # printf %s "$KEY" | sha256sum; or key = "sk-..." in the clear
//   tenant = "search-team"
//   requests_per_minute = 600     # optional, as all that follows
//   tokens_per_minute = 200000
//   models = ["llama-8b"]         # others are refused; default: all
//   priority = -1                 # the most urgent `priority` that its requests may ask for; default: 0
//   admin = true                  # may load and unload models and read /debug; default: false
//
// Threads: any.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "http/digest.h"
#include "http/quota.h"

namespace tessera {

// What a request may do, by its key.
struct Caller {
  std::string tenant;
  std::vector<std::string> models;  // empty: all
  int64_t most_urgent_priority = 0;
  bool admin = false;  // may do what is the operator's: see admin_only() of gate.h
  std::shared_ptr<Quota> quota;

  bool may_use(std::string_view model) const;
};

class ApiKeys {
 public:
  static Result<ApiKeys> load(const std::filesystem::path& file);
  static Result<ApiKeys> parse(std::string_view toml, const std::string& name);

  // Null for a key that is not there. The time it takes does not tell how much of a key was right.
  std::shared_ptr<const Caller> find(std::string_view key) const;
  size_t size() const { return keys_.size(); }

 private:
  struct Entry {
    Sha256 digest;
    std::shared_ptr<const Caller> caller;
  };
  std::vector<Entry> keys_;
};

}  // namespace tessera
