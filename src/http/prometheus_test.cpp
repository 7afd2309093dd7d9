#include "http/prometheus.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Prometheus, FamiliesOfTwoModelsStandTogether) {
  PrometheusText text;
  for (std::string model : {"a", "b\"\n"}) {
    text.gauge("x", "An x.", {{"model", model}}, 1.5);
    text.counter("y_total", "A y.", {}, 1e9);
  }
  EXPECT_EQ(text.text(),
            "# HELP x An x.\n# TYPE x gauge\nx{model=\"a\"} 1.5\nx{model=\"b\\\"\\n\"} 1.5\n"
            "# HELP y_total A y.\n# TYPE y_total counter\ny_total 1000000000\ny_total 1000000000\n");
}

TEST(Prometheus, BucketsCountAllBelowTheirBoundAndTheBoundItself) {
  Histogram values({0.5, 1, 10});
  for (double value : {0.1, 1.0, 1.1, 10.0, 11.0}) values.observe(value);
  PrometheusText text;
  text.histogram("h", "An h.", {{"m", "v"}}, values);
  EXPECT_EQ(
      text.text(),
      "# HELP h An h.\n# TYPE h histogram\nh_bucket{m=\"v\",le=\"0.5\"} 1\nh_bucket{m=\"v\",le=\"1.0\"} 2\n"
      "h_bucket{m=\"v\",le=\"10.0\"} 4\nh_bucket{m=\"v\",le=\"+Inf\"} 5\nh_sum{m=\"v\"} 23.2\nh_count{m=\"v\"} "
      "5\n");
}

TEST(Prometheus, BoundsOfLengthsAreThoseOfVllm) {
  EXPECT_EQ(one_two_five(100), (std::vector<double>{1, 2, 5, 10, 20, 50, 100}));
  EXPECT_EQ(one_two_five(4), (std::vector<double>{1, 2}));
}

}  // namespace
}  // namespace tessera
