#include "plan/training/failures.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/toml.h"
#include "plan/assignments.h"
#include "plan/embedded.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

const json& data() {
  static const json root = [] {
    for (const EmbeddedFile& file : embedded_files())
      if (file.path == "failures.toml") return parse_toml(file.text, file.path).value().root;
    return json::object();
  }();
  return root;
}

std::vector<NumberOption> options_of(FailurePolicy& policy) {
  return {{"restart_s", &policy.restart_s},
          {"planned_s", &policy.planned_s},
          {"interval_s", &policy.interval_s},
          {"snapshot_s", &policy.snapshot_s},
          {"snapshot_link_share", &policy.snapshot_link_share, 1e-3, 1},
          {"storage_bytes_per_s_per_device", &policy.storage_bytes_per_s_per_device, 1},
          {"repair_s", &policy.repair_s},
          {"spare_hosts", &policy.spare_hosts},
          {"spare_confidence", &policy.spare_confidence, 0, 0.999999},
          {"straggler_sigma", &policy.straggler_sigma, 0, 1},
          {"corruption_detection_s", &policy.corruption_detection_s}};
}

FailurePolicy read_policy() {
  FailurePolicy policy;
  const json& table = data().at("policy");
  for (const NumberOption& option : options_of(policy))
    if (table.contains(option.key)) *option.into = table.at(option.key).get<double>();
  return policy;
}

}  // namespace

const std::vector<FailureCause>& failure_causes() {
  static const std::vector<FailureCause> causes = [] {
    std::vector<FailureCause> list;
    double total = 0;
    for (const json& one : data().at("cause")) total += one.at("count").get<double>();
    for (const json& one : data().at("cause"))
      list.push_back({one.at("name"), one.at("count").get<double>() / total, one.value("hardware", false),
                      one.value("silent", false)});
    return list;
  }();
  return causes;
}

double planned_per_unexpected() {
  double total = 0;
  for (const json& one : data().at("cause")) total += one.at("count").get<double>();
  return data().at("observed").at("planned").get<double>() / total;
}

const FailurePolicy& default_policy() {
  static const FailurePolicy policy = read_policy();
  return policy;
}

Result<FailurePolicy> parse_failure_policy(const std::string& text) {
  FailurePolicy policy = default_policy();
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    if (part == "checkpoint=storage" || part == "checkpoint=memory")
      policy.to_storage = part.ends_with("storage");
    else if (part.starts_with("checkpoint="))
      return invalid("--failures: '{}', expected checkpoint=memory or checkpoint=storage", part);
    else
      TESSERA_RETURN_IF_ERROR(assign_numbers("--failures", part, options_of(policy)));
  }
  return policy;
}

}  // namespace tessera::plan
