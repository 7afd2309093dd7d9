#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/nearest.h"
#include "core/text.h"
#include "core/toml.h"
#include "plan/embedded.h"
#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

// One key of a table and where its number goes.
struct NumberKey {
  const char* key;
  double* into;
  double least = 0;
  bool required = false;
};

std::string join_path(const std::string& table, const std::string& key) {
  return table.empty() ? key : table + "." + key;
}

// Reads a table key by key; the first fault is kept and reported once.
class TableReader {
 public:
  TableReader(const TomlDocument& document, const json& table, std::string path)
      : document_(document), table_(table), path_(std::move(path)) {}

  void number(const NumberKey& key) {
    known_.push_back(key.key);
    if (!table_.contains(key.key)) {
      if (key.required) fail(key.key, "is missing");
      return;
    }
    const json& value = table_.at(key.key);
    if (!value.is_number() || value.get<double>() < key.least)
      return fail(key.key, fmt::format("got {}, expected a number of at least {:g}", value.dump(), key.least));
    *key.into = value.get<double>();
  }
  void integer(const char* key, int64_t& into, int64_t least) {
    double value = static_cast<double>(into);
    number({key, &value, static_cast<double>(least)});
    into = static_cast<int64_t>(value);
    if (static_cast<double>(into) != value) fail(key, "expected a whole number");
  }
  void text(const char* key, std::string& into, bool required = false) {
    known_.push_back(key);
    if (table_.contains(key) && table_.at(key).is_string())
      into = table_.at(key).get<std::string>();
    else if (required || table_.contains(key))
      fail(key, "expected a text");
  }
  void flag(const char* key, bool& into) {
    known_.push_back(key);
    if (!table_.contains(key)) return;
    if (!table_.at(key).is_boolean()) return fail(key, "expected true or false");
    into = table_.at(key).get<bool>();
  }
  void texts(const char* key, std::vector<std::string>& into) {
    known_.push_back(key);
    for (const json& value : table_.value(key, json::array()))
      value.is_string() ? into.push_back(value.get<std::string>()) : fail(key, "expected a list of texts");
  }
  // A key that another reader takes.
  void also(const char* key) { known_.push_back(key); }
  Status finish() {
    for (const auto& [key, value] : table_.items())
      if (std::find(known_.begin(), known_.end(), key) == known_.end())
        fail(key, fmt::format("is unknown{}", did_you_mean(key, known_)));
    return status_;
  }

 private:
  void fail(const std::string& key, const std::string& why) {
    if (!status_.ok()) return;
    std::string path = join_path(path_, key);
    status_ = invalid("{}: key '{}' {}", document_.where(path), path, why);
  }
  const TomlDocument& document_;
  const json& table_;
  std::string path_;
  std::vector<std::string> known_;
  Status status_;
};

Status read_table(const TomlDocument& document, const char* name, const std::vector<NumberKey>& numbers,
                  const std::function<void(TableReader&)>& more = {}) {
  static const json kEmpty = json::object();
  const json& table = document.root.contains(name) ? document.root.at(name) : kEmpty;
  if (!table.is_object()) return invalid("{}: '{}' must be a table", document.where(name), name);
  TableReader reader(document, table, name);
  for (const NumberKey& key : numbers) reader.number(key);
  if (more) more(reader);
  return reader.finish();
}

Status read_tier(const TomlDocument& document, const json& table, LinkTier& tier) {
  TableReader reader(document, table, "tier");
  reader.text("name", tier.name, true);
  reader.integer("devices", tier.devices, 1);
  reader.number({"bytes_per_s", &tier.bytes_per_s, 1, true});
  reader.number({"latency_s", &tier.latency_s, 0, true});
  reader.number({"oversubscription", &tier.oversubscription, 1});
  reader.number({"reduction_bytes_per_s", &tier.reduction_bytes_per_s});
  reader.integer("reduction_ranks", tier.reduction_ranks, 2);
  reader.flag("mesh", tier.mesh);
  return reader.finish();
}

Status read_tiers(const TomlDocument& document, GpuCluster& cluster) {
  for (const json& table : document.root.value("tier", json::array())) {
    LinkTier tier;
    TESSERA_RETURN_IF_ERROR(read_tier(document, table, tier));
    if (!cluster.tiers.empty() && tier.devices <= cluster.tiers.back().devices)
      return invalid("{}: tier '{}' holds {} devices, expected more than the {} of tier '{}' inside it",
                     document.where("tier"), tier.name, tier.devices, cluster.tiers.back().devices,
                     cluster.tiers.back().name);
    cluster.tiers.push_back(tier);
  }
  if (cluster.tiers.empty()) return invalid("{}: no [[tier]], expected at least one", document.name);
  return {};
}

Status read_all(const TomlDocument& document, GpuCluster& cluster) {
  TableReader top(document, document.root, "");
  top.text("name", cluster.name, true);
  top.texts("aliases", cluster.aliases);
  for (const char* table : {"device", "efficiency", "tier", "power", "economy", "reliability", "source"})
    top.also(table);
  TESSERA_RETURN_IF_ERROR(top.finish());
  Device& device = cluster.device;
  TESSERA_RETURN_IF_ERROR(read_table(document, "device",
                                     {{"peak_float32", &device.peak_float32},
                                      {"peak_tf32", &device.peak_tf32},
                                      {"peak_bf16", &device.peak_bf16, 1, true},
                                      {"peak_fp8", &device.peak_fp8},
                                      {"peak_fp4", &device.peak_fp4},
                                      {"memory_bytes", &device.memory_bytes, 1, true},
                                      {"memory_bytes_per_s", &device.memory_bytes_per_s, 1, true},
                                      {"multiprocessors", &device.multiprocessors, 1, true},
                                      {"host_bytes_per_s", &device.host_bytes_per_s}},
                                     [&](TableReader& reader) {
                                       reader.text("vendor", device.vendor, true);
                                       reader.text("generation", device.generation, true);
                                     }));
  Efficiencies& part = cluster.efficiency;
  TESSERA_RETURN_IF_ERROR(read_table(document, "efficiency",
                                     {{"gemm_bf16", &part.gemm_bf16},
                                      {"gemm_fp8", &part.gemm_fp8},
                                      {"gemm_fp4", &part.gemm_fp4},
                                      {"attention_forward", &part.attention_forward},
                                      {"attention_backward", &part.attention_backward},
                                      {"memory", &part.memory},
                                      {"link", &part.link},
                                      {"network", &part.network}}));
  Power& power = cluster.power;
  TESSERA_RETURN_IF_ERROR(read_table(document, "power",
                                     {{"device_w", &power.device_w, 1, true},
                                      {"idle_w", &power.idle_w},
                                      {"all_in_w", &power.all_in_w},
                                      {"host_w", &power.host_w},
                                      {"pue", &power.pue, 1}}));
  if (power.host_w == 0) power.host_w = std::max(0.0, power.all_in_w / power.pue - power.device_w);
  Economy& economy = cluster.economy;
  TESSERA_RETURN_IF_ERROR(read_table(document, "economy",
                                     {{"price_low", &economy.price_low},
                                      {"price", &economy.price},
                                      {"price_high", &economy.price_high},
                                      {"owned_price", &economy.owned_price},
                                      {"grid_kg_per_kwh", &economy.grid_kg_per_kwh},
                                      {"embodied_kg", &economy.embodied_kg},
                                      {"lifetime_hours", &economy.lifetime_hours, 1}}));
  Reliability& reliability = cluster.reliability;
  TESSERA_RETURN_IF_ERROR(read_table(
      document, "reliability", {{"failures_per_1000_node_days", &reliability.failures_per_1000_node_days}},
      [&](TableReader& reader) { reader.integer("devices_per_host", reliability.devices_per_host, 1); }));
  const json source = document.root.value("source", json::object());
  for (const auto& [key, value] : source.items())
    if (value.is_string()) cluster.source[key] = value.get<std::string>();
  return read_tiers(document, cluster);
}

bool is_cluster_path(const std::string& text) {
  std::error_code ignored;
  return text.find('/') != std::string::npos || text.ends_with(".toml") ||
         std::filesystem::is_regular_file(text, ignored);
}

// Parsed once: every planning command asks for some of them.
const std::vector<GpuCluster>& catalogue() {
  static const std::vector<GpuCluster> clusters = [] {
    std::vector<GpuCluster> parsed;
    for (const EmbeddedFile& file : embedded_files()) {
      if (!file.path.starts_with("gpus/")) continue;
      auto cluster = parse_gpu_cluster(file.text, file.path);
      TESSERA_REQUIRE(cluster.ok(), "{}", cluster.error().message);
      parsed.push_back(std::move(*cluster));
    }
    return parsed;
  }();
  return clusters;
}

const GpuCluster* find(const std::string& name) {
  std::string wanted = lower_ascii(name);
  for (const GpuCluster& cluster : catalogue()) {
    if (cluster.name == wanted) return &cluster;
    for (const std::string& alias : cluster.aliases)
      if (lower_ascii(alias) == wanted) return &cluster;
  }
  return nullptr;
}

}  // namespace

Result<GpuCluster> parse_gpu_cluster(std::string_view toml, const std::string& file_name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(toml, file_name));
  GpuCluster cluster;
  TESSERA_RETURN_IF_ERROR(read_all(document, cluster));
  return cluster;
}

std::vector<std::string> gpu_cluster_names() {
  std::vector<std::string> names;
  for (const GpuCluster& cluster : catalogue()) names.push_back(cluster.name);
  return names;
}

Result<GpuCluster> load_gpu_cluster(const std::string& name_or_path) {
  if (const GpuCluster* cluster = find(name_or_path)) return *cluster;
  if (is_cluster_path(name_or_path)) {
    TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(name_or_path));
    return parse_gpu_cluster(text, name_or_path);
  }
  auto names = gpu_cluster_names();
  return make_error(ErrorCode::not_found, "no GPU cluster named '{}'{}; known: {}; or give a TOML file",
                    name_or_path, did_you_mean(lower_ascii(name_or_path), names), fmt::join(names, ", "));
}

bool is_gpu_cluster(const std::string& name_or_path) {
  if (find(name_or_path)) return true;
  if (!is_cluster_path(name_or_path)) return false;
  auto text = read_file(name_or_path);
  return text.ok() && text->find("[device]") != std::string::npos;
}

}  // namespace tessera::plan
