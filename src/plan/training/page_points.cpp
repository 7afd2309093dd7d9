#include "plan/training/page_points.h"

#include <algorithm>

#include "plan/training/gpu_candidates.h"

namespace tessera::plan {
namespace {

constexpr size_t kOwnPoints = 2400, kOtherPoints = 600;  // of these devices; of each other number

GpuPlanRequest with_devices(const GpuPlanRequest& request, int64_t gpus) {
  GpuPlanRequest other = request;
  other.gpus = gpus, other.min_gpus = 0, other.max_days = 0;
  other.layout.reset(), other.top = 1;
  return other;
}

std::vector<LayoutPoint> sample(const GpuPlanRequest& request, size_t most) {
  std::vector<TrainingLayout> layouts = training_candidates(request);
  size_t stride = layouts.size() / most + 1;
  std::vector<LayoutPoint> points;
  for (size_t i = 0; i < layouts.size(); i += stride)
    if (auto one = predict_training(request, layouts[i])) points.push_back(layout_point(*one));
  return points;
}

std::vector<LayoutPoint> front_of(std::vector<LayoutPoint> points) {
  std::sort(points.begin(), points.end(),
            [](const LayoutPoint& a, const LayoutPoint& b) { return a.hours < b.hours; });
  std::vector<LayoutPoint> front;
  for (LayoutPoint& point : points)
    if (point.fits && (front.empty() || point.usd < front.back().usd)) front.push_back(std::move(point));
  return front;
}

}  // namespace

LayoutPoint layout_point(const GpuPrediction& one) {
  return {.gpus = one.setup.layout.devices(),
          .hours = one.cost.hours,
          .usd = one.cost.usd,
          .tokens_per_s_per_device = one.step.tokens_per_s_per_device,
          .peak_bytes = one.peak_bytes,
          .fits = one.fits,
          .layout = to_string(one.setup.layout)};
}

LayoutCloud layout_cloud(const GpuPlanRequest& request) {
  LayoutCloud cloud;
  std::vector<LayoutPoint> best;
  for (int64_t quarter : {1, 2, 4, 8, 16}) {
    if (request.gpus * quarter % 4 != 0) continue;
    GpuPlanRequest some = with_devices(request, request.gpus * quarter / 4);
    for (LayoutPoint& point : sample(some, quarter == 4 ? kOwnPoints : kOtherPoints))
      cloud.points.push_back(std::move(point));
    auto plan = plan_training(some);
    if (plan && !plan->ranked.empty()) best.push_back(layout_point(plan->ranked.front()));
  }
  cloud.front = front_of(std::move(best));
  return cloud;
}

}  // namespace tessera::plan
