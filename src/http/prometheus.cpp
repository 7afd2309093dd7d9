#include "http/prometheus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tessera {

namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    c == '\n' ? out += "\\n" : out += c;
  }
  return out;
}

std::string written(const PrometheusText::Labels& labels) {
  std::string out;
  for (const auto& [name, value] : labels)
    out += fmt::format("{}{}=\"{}\"", out.empty() ? "" : ",", name, escaped(value));
  return out;
}

// Counts of any size as they are, not as 1e+06.
std::string number(double value) {
  constexpr double kExact = 1e15;
  if (std::abs(value) < kExact && value == std::floor(value))
    return fmt::format("{}", static_cast<int64_t>(value));
  return fmt::format("{}", value);
}

std::string braced(const std::string& labels) {
  return labels.empty() ? "" : "{" + labels + "}";
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  ++counts_[static_cast<size_t>(bucket)];
  sum_ += value;
}

std::vector<double> one_two_five(int64_t most) {
  std::vector<double> out;
  for (int64_t power = 1; power <= most; power *= 10)
    for (int64_t digit : {1, 2, 5})
      if (digit * power <= most) out.push_back(static_cast<double>(digit * power));
  return out;
}

std::string& PrometheusText::family(const std::string& name, const char* type, const std::string& help) {
  auto [found, is_new] = families_.try_emplace(name);
  if (is_new) {
    names_.push_back(name);
    found->second = fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  return found->second;
}

void PrometheusText::gauge(const std::string& name, const std::string& help, const Labels& labels,
                           double value) {
  family(name, "gauge", help) += fmt::format("{}{} {}\n", name, braced(written(labels)), number(value));
}

void PrometheusText::counter(const std::string& name, const std::string& help, const Labels& labels,
                             double value) {
  family(name, "counter", help) += fmt::format("{}{} {}\n", name, braced(written(labels)), number(value));
}

void PrometheusText::histogram(const std::string& name, const std::string& help, const Labels& labels,
                               const Histogram& values) {
  std::string& text = family(name, "histogram", help);
  std::string own = written(labels), front = own.empty() ? "" : own + ",";
  int64_t count = 0;
  for (size_t i = 0; i < values.counts().size(); ++i) {
    count += values.counts()[i];
    // Python's client writes whole bounds as 1.0, and dashboards look for that.
    std::string bound = i == values.bounds().size() ? "+Inf" : fmt::format("{}", values.bounds()[i]);
    if (bound.find_first_of(".eI") == bound.npos) bound += ".0";
    text += fmt::format("{}_bucket{{{}le=\"{}\"}} {}\n", name, front, bound, count);
  }
  text += fmt::format("{0}_sum{1} {2}\n{0}_count{1} {3}\n", name, braced(own), values.sum(), count);
}

std::string PrometheusText::text() const {
  std::string out;
  for (const std::string& name : names_) out += families_.at(name);
  return out;
}

}  // namespace tessera
