#include "plan/serving/arrivals.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <list>
#include <nlohmann/json.hpp>
#include <random>
#include <unordered_map>

#include "core/file.h"
#include "plan/validate/csv.h"

namespace tessera::plan::serving {
namespace {

constexpr int64_t kMooncakeBlock = 512;

// Blocks of prefixes, least recently used first out.
class PrefixCache {
 public:
  explicit PrefixCache(int64_t blocks) : capacity_(blocks) {}

  // Leading blocks of `hashes` that are held; afterwards all of them are, the newest.
  int64_t look_up(const std::vector<int64_t>& hashes) {
    int64_t hits = 0;
    while (hits < static_cast<int64_t>(hashes.size()) && places_.contains(hashes[static_cast<size_t>(hits)]))
      ++hits;
    for (int64_t hash : hashes) touch(hash);
    return hits;
  }

 private:
  void touch(int64_t hash) {
    if (capacity_ <= 0) return;
    auto found = places_.find(hash);
    if (found != places_.end()) {
      order_.splice(order_.end(), order_, found->second);
      return;
    }
    places_[hash] = order_.insert(order_.end(), hash);
    if (static_cast<int64_t>(order_.size()) <= capacity_) return;
    places_.erase(order_.front());
    order_.pop_front();
  }

  int64_t capacity_;
  std::list<int64_t> order_;
  std::unordered_map<int64_t, std::list<int64_t>::iterator> places_;
};

// Seconds of "2023-11-16 18:17:03.9799600" since the start of its month: traces last hours.
std::optional<double> clock_seconds(const std::string& text) {
  int day = 0, hour = 0, minute = 0;
  double second = 0;
  if (std::sscanf(text.c_str(), "%*d-%*d-%d %d:%d:%lf", &day, &hour, &minute, &second) != 4)
    return std::nullopt;
  return ((day * 24.0 + hour) * 60 + minute) * 60 + second;
}

Result<std::vector<Request>> read_azure(const std::string& text, const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(CsvTable table, parse_csv(text, path));
  std::vector<Request> requests;
  for (const CsvRow& row : table.rows) {
    auto time = clock_seconds(table.cell(row, "TIMESTAMP"));
    auto prompt = table.number(row, "ContextTokens"), answer = table.number(row, "GeneratedTokens");
    if (!time || !prompt || !answer || *prompt < 1 || *answer < 0)
      return invalid("{}:{}: expected TIMESTAMP, ContextTokens, GeneratedTokens, got '{}', '{}', '{}'", path,
                     row.line, table.cell(row, "TIMESTAMP"), table.cell(row, "ContextTokens"),
                     table.cell(row, "GeneratedTokens"));
    requests.push_back({.arrival_s = *time,
                        .prompt = static_cast<int64_t>(*prompt),
                        .answer = std::max<int64_t>(1, static_cast<int64_t>(*answer))});
  }
  return requests;
}

Result<Request> read_mooncake_line(const std::string& line, PrefixCache& cache) {
  auto object = nlohmann::json::parse(line, nullptr, false);
  for (const char* key : {"timestamp", "input_length", "output_length"})
    if (!object.is_object() || !object.contains(key) || !object[key].is_number())
      return invalid("expected an object with numbers timestamp, input_length and output_length");
  Request request{.arrival_s = object["timestamp"].get<double>() / 1000,
                  .prompt = std::max<int64_t>(1, object["input_length"].get<int64_t>()),
                  .answer = std::max<int64_t>(1, object["output_length"].get<int64_t>())};
  std::vector<int64_t> hashes;
  for (const auto& hash : object.value("hash_ids", nlohmann::json::array()))
    if (hash.is_number_integer()) hashes.push_back(hash.get<int64_t>());
  // The last token of a prompt is always computed: its row gives the first answer token.
  request.cached = std::min(request.prompt - 1, cache.look_up(hashes) * kMooncakeBlock);
  return request;
}

Result<std::vector<Request>> read_mooncake(const std::string& text, const std::string& path,
                                           int64_t prefix_tokens) {
  PrefixCache cache(prefix_tokens / kMooncakeBlock);
  std::vector<Request> requests;
  size_t at = 0;
  for (int line = 1; at < text.size(); ++line) {
    size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) {
      Result<Request> request = read_mooncake_line(text.substr(at, end - at), cache);
      if (!request) return request.error().within(fmt::format("{}:{}", path, line));
      requests.push_back(*request);
    }
    at = end + 1;
  }
  return requests;
}

}  // namespace

std::vector<Request> draw_requests(const Drawn& drawn) {
  std::mt19937_64 random(drawn.seed);
  std::exponential_distribution<double> gap(drawn.rate > 0 ? drawn.rate : 1);
  auto length = [&](double largest) {
    std::uniform_real_distribution<double> share(drawn.shortest, 1);
    double value = drawn.shortest < 1 ? largest * share(random) : largest;
    return std::max<int64_t>(1, std::llround(value));
  };
  std::vector<Request> requests;
  double now = 0;
  for (int64_t i = 0; i < drawn.requests; ++i) {
    if (drawn.rate > 0) now += gap(random);
    requests.push_back(
        {.arrival_s = now, .prompt = length(drawn.input_tokens), .answer = length(drawn.output_tokens)});
  }
  return requests;
}

Result<std::vector<Request>> read_trace(const std::string& path, int64_t prefix_tokens) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path));
  bool mooncake = text.starts_with("{");
  TESSERA_ASSIGN_OR_RETURN(std::vector<Request> requests,
                           mooncake ? read_mooncake(text, path, prefix_tokens) : read_azure(text, path));
  if (requests.empty()) return invalid("{} holds no requests", path);
  std::stable_sort(requests.begin(), requests.end(),
                   [](const Request& a, const Request& b) { return a.arrival_s < b.arrival_s; });
  double start = requests.front().arrival_s;
  for (Request& request : requests) request.arrival_s -= start;
  return requests;
}

}  // namespace tessera::plan::serving
