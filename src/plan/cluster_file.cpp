#include <toml++/toml.h>

#include <algorithm>
#include <functional>

#include "core/file.h"
#include "core/nearest.h"
#include "plan/cluster.h"

namespace tessera::plan {
namespace {

// The scalar figures of a cluster file, in the order in which they are written.
struct ScalarField {
  const char* key;
  double Cluster::*member;
};
const std::vector<ScalarField>& scalar_fields() {
  static const std::vector<ScalarField> fields = {
      {"memory_bytes", &Cluster::memory_bytes},
      {"reserved_bytes", &Cluster::reserved_bytes},
      {"memory_bytes_per_s", &Cluster::memory_bytes_per_s},
      {"peak_float32", &Cluster::peak_float32},
      {"peak_bf16", &Cluster::peak_bf16},
      {"peak_fp8", &Cluster::peak_fp8},
      {"gemm_efficiency", &Cluster::gemm_efficiency},
      {"memory_efficiency", &Cluster::memory_efficiency},
      {"attention_efficiency", &Cluster::attention_efficiency},
      {"kernel_overhead_s", &Cluster::kernel_overhead_s},
      {"action_overhead_s", &Cluster::action_overhead_s},
      {"relative_error", &Cluster::relative_error},
      {"price_usd_per_hour", &Cluster::price_usd_per_hour},
      {"watts", &Cluster::watts},
  };
  return fields;
}

std::vector<std::string> known_keys() {
  std::vector<std::string> keys = {
      "name", "cores", "running",    "speed",   "threads",    "thread_speed", "attention", "tier",
      "gemm", "link",  "op_float32", "op_bf16", "provenance", "serving_host"};  // plan/serving/host.h
  for (const auto& field : scalar_fields()) keys.push_back(field.key);
  return keys;
}

const std::vector<std::pair<std::string, Product>> kProducts = {
    {"nt", Product::nt}, {"nn", Product::nn}, {"tn", Product::tn}};
const std::vector<std::pair<std::string, Precision>> kPrecisions = {{"float32", Precision::float32},
                                                                    {"bf16", Precision::bf16}};
const std::vector<std::pair<std::string, Collective>> kCollectives = {
    {"all_gather", Collective::all_gather}, {"all_to_all", Collective::all_to_all}, {"send", Collective::send}};

// Reads one table and remembers the first thing wrong with it.
class Table {
 public:
  Table(const toml::table& table, std::string where) : table_(table), where_(std::move(where)) {}

  double number(const char* key, double fallback, double least = 0) {
    const toml::node* node = table_.get(key);
    if (!node) return fallback;
    auto value = node->value<double>();
    if (value && *value >= least) return *value;
    return fail(key, fmt::format("expected a number of at least {:g}", least)), fallback;
  }
  int64_t integer(const char* key, int64_t fallback, int64_t least = 0) {
    double value = number(key, static_cast<double>(fallback), static_cast<double>(least));
    if (value != static_cast<double>(static_cast<int64_t>(value))) fail(key, "expected a whole number");
    return static_cast<int64_t>(value);
  }
  std::string text(const char* key) {
    if (auto value = table_[key].value<std::string>()) return *value;
    return fail(key, "expected a text"), "";
  }
  template <class T>
  T choice(const char* key, const std::vector<std::pair<std::string, T>>& choices) {
    std::string value = text(key);
    std::vector<std::string> names;
    for (const auto& [name, result] : choices) {
      if (name == value) return result;
      names.push_back(name);
    }
    fail(key, fmt::format("got '{}', expected one of {}{}", value, fmt::join(names, ", "),
                          did_you_mean(value, names)));
    return choices.front().second;
  }
  template <class T>
  std::vector<T> positive_list(const char* key) {
    std::vector<T> values;
    const toml::array* array = table_[key].as_array();
    if (!array || array->empty()) return fail(key, "expected a list of numbers"), values;
    for (const auto& element : *array) {
      auto value = element.value<double>();
      if (!value || *value <= 0) return fail(key, "expected positive numbers only"), std::vector<T>{};
      values.push_back(static_cast<T>(*value));
    }
    return values;
  }
  void fail(const char* key, const std::string& why) {
    if (!error_) error_ = invalid("{}: key '{}': {}", where_, key, why);
  }
  bool has(const char* key) const { return table_.contains(key); }
  const std::optional<Error>& error() const { return error_; }

 private:
  const toml::table& table_;
  std::string where_;
  std::optional<Error> error_;
};

bool ascending(const std::vector<double>& values) {
  return std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) == values.end();
}

GemmGrid read_grid(Table& table) {
  GemmGrid grid{table.choice("product", kProducts), table.choice("precision", kPrecisions),
                table.positive_list<double>("m"),   table.positive_list<double>("n"),
                table.positive_list<double>("k"),   table.positive_list<double>("flops_per_s")};
  if (grid.flops_per_s.size() != grid.m.size() * grid.n.size() * grid.k.size())
    table.fail("flops_per_s", fmt::format("has {} values for a grid of {} x {} x {}", grid.flops_per_s.size(),
                                          grid.m.size(), grid.n.size(), grid.k.size()));
  if (!ascending(grid.m) || !ascending(grid.n) || !ascending(grid.k))
    table.fail("m", "m, n and k must be ascending");
  return grid;
}

LinkPoint read_link(Table& table) {
  return {table.choice("collective", kCollectives), table.integer("ranks", 2, 2), table.number("bytes", 1, 1),
          table.number("seconds", 1, 1e-12)};
}

AttentionPoint read_attention(Table& table) {
  return {table.choice("precision", kPrecisions), table.number("head_dim", 64, 1),
          table.number("forward", 1, 1), table.number("backward", 1, 1)};
}

Tier read_tier(Table& table) {
  return {table.text("name"), table.integer("devices", 1, 1), table.number("latency_s", 0),
          table.number("bytes_per_s", 1, 1)};
}

template <class T>
Status read_tables(const toml::table& root, const char* key, const std::string& file_name, T (*read)(Table&),
                   std::vector<T>& out) {
  if (!root.contains(key)) return {};
  const toml::array* array = root[key].as_array();
  if (!array) return invalid("{}: '{}' must be written as [[{}]]", file_name, key, key);
  for (const auto& element : *array) {
    const toml::table* inner = element.as_table();
    if (!inner) return invalid("{}: '{}' must hold tables", file_name, key);
    Table table(*inner, fmt::format("{}: [[{}]] {}", file_name, key, out.size() + 1));
    out.push_back(read(table));
    if (table.error()) return *table.error();
  }
  return {};
}

Status read_ops(const toml::table& root, const char* key, const std::string& file_name,
                std::map<Op, double>& out) {
  const toml::table* inner = root[key].as_table();
  if (!inner) return {};
  std::vector<std::string> names;
  for (int i = 0; i < kOps; ++i) names.push_back(to_string(static_cast<Op>(i)));
  for (const auto& [name, value] : *inner) {
    auto found = std::find(names.begin(), names.end(), name.str());
    if (found == names.end())
      return invalid("{}: [{}] has no operation '{}'{}", file_name, key, name.str(),
                     did_you_mean(name.str(), names));
    if (!value.value<double>() || *value.value<double>() <= 0)
      return invalid("{}: [{}] {}: expected positive seconds per element", file_name, key, name.str());
    out[static_cast<Op>(found - names.begin())] = *value.value<double>();
  }
  return {};
}

Status check(const Cluster& cluster, const std::string& file_name) {
  auto pair = [&](const char* x, size_t nx, const char* y, size_t ny) -> Status {
    if (nx == ny) return {};
    return invalid("{}: {} has {} values but {} has {}", file_name, x, nx, y, ny);
  };
  TESSERA_RETURN_IF_ERROR(pair("running", cluster.running.size(), "speed", cluster.speed.size()));
  TESSERA_RETURN_IF_ERROR(pair("threads", cluster.threads.size(), "thread_speed", cluster.thread_speed.size()));
  if (cluster.memory_bytes <= 0) return invalid("{}: memory_bytes is missing", file_name);
  if (cluster.tiers.empty() && cluster.links.empty())
    return invalid("{}: neither [[tier]] nor [[link]] says how fast ranks talk", file_name);
  if (cluster.gemm.empty() && (cluster.peak_bf16 <= 0 || cluster.memory_bytes_per_s <= 0))
    return invalid("{}: give [[gemm]] grids, or peak_bf16 and memory_bytes_per_s", file_name);
  return {};
}

Result<Cluster> read_cluster(const toml::table& root, const std::string& file_name) {
  auto keys = known_keys();
  for (const auto& [key, value] : root)
    if (std::find(keys.begin(), keys.end(), key.str()) == keys.end())
      return invalid("{}: unknown key '{}'{}", file_name, key.str(), did_you_mean(key.str(), keys));
  Cluster cluster;
  Table table(root, file_name);
  cluster.name = table.text("name");
  cluster.cores = table.integer("cores", 0);
  for (const auto& field : scalar_fields())
    cluster.*field.member = table.number(field.key, cluster.*field.member);
  if (table.has("running")) cluster.running = table.positive_list<int64_t>("running");
  if (table.has("speed")) cluster.speed = table.positive_list<double>("speed");
  if (table.has("threads")) cluster.threads = table.positive_list<int64_t>("threads");
  if (table.has("thread_speed")) cluster.thread_speed = table.positive_list<double>("thread_speed");
  if (table.error()) return *table.error();
  TESSERA_RETURN_IF_ERROR(read_tables(root, "gemm", file_name, read_grid, cluster.gemm));
  TESSERA_RETURN_IF_ERROR(read_tables(root, "attention", file_name, read_attention, cluster.attention));
  TESSERA_RETURN_IF_ERROR(read_tables(root, "link", file_name, read_link, cluster.links));
  TESSERA_RETURN_IF_ERROR(read_tables(root, "tier", file_name, read_tier, cluster.tiers));
  TESSERA_RETURN_IF_ERROR(read_ops(root, "op_float32", file_name, cluster.op_float32));
  TESSERA_RETURN_IF_ERROR(read_ops(root, "op_bf16", file_name, cluster.op_bf16));
  if (const toml::table* inner = root["provenance"].as_table())
    for (const auto& [key, value] : *inner)
      cluster.provenance[std::string(key.str())] = value.value_or(std::string());
  TESSERA_RETURN_IF_ERROR(check(cluster, file_name));
  return cluster;
}

template <class T>
std::string list(const char* key, const std::vector<T>& values) {
  return fmt::format("{} = [{}]\n", key, fmt::join(values, ", "));
}

// A TOML basic string.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + "\"";
}

template <class T>
std::string name_of(const std::vector<std::pair<std::string, T>>& choices, T value) {
  for (const auto& [name, choice] : choices)
    if (choice == value) return name;
  return "";
}

}  // namespace

Result<Cluster> parse_cluster(std::string_view text, const std::string& file_name) {
  try {
    return read_cluster(toml::parse(text), file_name);
  } catch (const toml::parse_error& error) {
    return invalid("{}:{}: {}", file_name, error.source().begin.line, error.description());
  }
}

std::string to_toml(const Cluster& cluster) {
  std::string out = fmt::format("name = {}\ncores = {}\n", quoted(cluster.name), cluster.cores);
  for (const auto& field : scalar_fields())
    if (cluster.*field.member != 0) out += fmt::format("{} = {:.6g}\n", field.key, cluster.*field.member);
  out += list("running", cluster.running) + list("speed", cluster.speed);
  out += list("threads", cluster.threads) + list("thread_speed", cluster.thread_speed);
  for (const Tier& tier : cluster.tiers)
    out += fmt::format("\n[[tier]]\nname = {}\ndevices = {}\nlatency_s = {:.6g}\nbytes_per_s = {:.6g}\n",
                       quoted(tier.name), tier.devices, tier.latency_s, tier.bytes_per_s);
  for (const LinkPoint& link : cluster.links)
    out += fmt::format("\n[[link]]\ncollective = \"{}\"\nranks = {}\nbytes = {:.0f}\nseconds = {:.6g}\n",
                       to_string(link.collective), link.ranks, link.bytes, link.seconds);
  for (const auto* ops : {&cluster.op_float32, &cluster.op_bf16}) {
    if (ops->empty()) continue;
    out += ops == &cluster.op_float32 ? "\n[op_float32]\n" : "\n[op_bf16]\n";
    for (const auto& [op, seconds] : *ops) out += fmt::format("{} = {:.6g}\n", to_string(op), seconds);
  }
  for (const AttentionPoint& point : cluster.attention)
    out +=
        fmt::format("\n[[attention]]\nprecision = \"{}\"\nhead_dim = {}\nforward = {:.5g}\nbackward = {:.5g}\n",
                    name_of(kPrecisions, point.precision), point.head_dim, point.forward, point.backward);
  for (const GemmGrid& grid : cluster.gemm) {
    std::vector<std::string> rates;
    for (double rate : grid.flops_per_s) rates.push_back(fmt::format("{:.5g}", rate));
    out += fmt::format("\n[[gemm]]\nproduct = \"{}\"\nprecision = \"{}\"\n", name_of(kProducts, grid.product),
                       name_of(kPrecisions, grid.precision));
    out += list("m", grid.m) + list("n", grid.n) + list("k", grid.k) + list("flops_per_s", rates);
  }
  if (!cluster.provenance.empty()) out += "\n[provenance]\n";
  for (const auto& [key, source] : cluster.provenance)
    out += fmt::format("{} = {}\n", quoted(key), quoted(source));
  return out;
}

Result<Cluster> load_cluster(const std::string& name_or_path) {
  bool is_path = name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".toml");
  if (!is_path) return cluster_by_name(name_or_path);
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(name_or_path));
  return parse_cluster(text, name_or_path);
}

}  // namespace tessera::plan
