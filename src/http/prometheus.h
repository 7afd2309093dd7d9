// Figures of a server as Prometheus text. Families that several models share are written once, with the samples
// of all of them, as the format wants it. Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace tessera {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);  // ascending upper bounds
  void observe(double value);

  const std::vector<double>& bounds() const { return bounds_; }
  const std::vector<int64_t>& counts() const { return counts_; }  // one more, for what is above all bounds
  double sum() const { return sum_; }

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;
  double sum_ = 0;
};

// 1, 2, 5, 10, 20, 50, ... up to `most`.
std::vector<double> one_two_five(int64_t most);

class PrometheusText {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  void gauge(const std::string& name, const std::string& help, const Labels& labels, double value);
  void counter(const std::string& name, const std::string& help, const Labels& labels, double value);
  void histogram(const std::string& name, const std::string& help, const Labels& labels,
                 const Histogram& values);
  std::string text() const;  // families in the order of their first sample

 private:
  std::string& family(const std::string& name, const char* type, const std::string& help);

  std::vector<std::string> names_;
  std::map<std::string, std::string> families_;
};

}  // namespace tessera
