#include "plan/serving/clients.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan::serving {

Clients::Clients(std::vector<Request> requests, int64_t users, double on_the_way_s)
    : requests_(std::move(requests)),
      progress_(requests_.size()),
      closed_(users > 0),
      on_the_way_s_(on_the_way_s) {
  for (const Request& request : requests_) send_s_.push_back(closed_ ? kNever : request.arrival_s);
  released_ = std::min(requests_.size(), static_cast<size_t>(std::max<int64_t>(0, users)));
  std::fill_n(send_s_.begin(), released_, 0.0);
}

size_t Clients::send() {
  progress_[sent_].sent_s = send_s_[sent_];
  return sent_++;
}

void Clients::answered(size_t request, double now) {
  progress_[request].done_s = now;
  ++done_;
  if (closed_ && released_ < requests_.size()) send_s_[released_++] = now;
}

Simulation Clients::report(const SimulationOptions& options, double seconds) const {
  Simulation s;
  std::vector<double> ttft, tpot, whole;
  double tokens = 0, good = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Progress& p = progress_[i];
    auto later = static_cast<double>(requests_[i].answer - 1);
    double per_token = later > 0 ? (p.done_s - p.first_s) / later : 0;
    ttft.push_back(p.first_s - p.sent_s);
    if (later > 0) tpot.push_back(per_token);
    whole.push_back(p.done_s - p.sent_s);
    tokens += later + 1;
    bool fast = options.prefill_deadline_s <= 0 || ttft.back() <= options.prefill_deadline_s;
    good += fast && (options.token_deadline_s <= 0 || per_token <= options.token_deadline_s) ? 1 : 0;
  }
  s.requests = std::ssize(requests_);
  s.ttft_s = percentiles(std::move(ttft));
  s.tpot_s = percentiles(std::move(tpot));
  s.request_s = percentiles(std::move(whole));
  s.seconds = seconds;
  s.tokens_per_s = tokens / seconds;
  s.within_deadlines = good / static_cast<double>(s.requests);
  return s;
}

Percentiles percentiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  auto at = [&](double share) {
    auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
    return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
  };
  double sum = 0;
  for (double value : values) sum += value;
  return {.mean = sum / static_cast<double>(values.size()),
          .p50 = at(0.5),
          .p90 = at(0.9),
          .p95 = at(0.95),
          .p99 = at(0.99)};
}

}  // namespace tessera::plan::serving
