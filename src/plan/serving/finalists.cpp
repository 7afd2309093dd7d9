#include "plan/serving/finalists.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan::serving {
namespace {

constexpr int kMostSimulations = 200;

double real(int64_t value) {
  return static_cast<double>(value);
}

// Requests of one of `workers` equal workers: of the trace, or drawn like the traffic.
std::vector<Request> requests_of(const SearchRequest& r, double workers, int64_t users) {
  std::vector<Request> share;
  if (r.trace.empty()) {
    // As benchmarks draw them: 80 to 100 % of a largest length, here around the mean.
    share = draw_requests({.requests = std::clamp<int64_t>(5 * users, 200, 4000),
                           .rate = r.traffic.arrival == Arrival::open ? r.traffic.rate / workers : 0,
                           .input_tokens = r.traffic.input_tokens / 0.9,
                           .output_tokens = r.traffic.output_tokens / 0.9,
                           .shortest = 0.8});
    for (Request& request : share)
      request.cached = std::min<int64_t>(request.prompt - 1, std::llround(r.traffic.cached_prefix));
    return share;
  }
  for (size_t i = 0; i < r.trace.size(); i += static_cast<size_t>(workers)) share.push_back(r.trace[i]);
  return share;
}

Result<Simulation> simulate_candidate(const SearchRequest& r, const Candidate& c) {
  auto worker = [&](const WorkerLayout& layout) {
    return Deployment{.model = r.model,
                      .device = r.device,
                      .engine = c.disaggregated ? r.one_phase_engine : r.engine,
                      .layout = layout,
                      .formats = r.formats,
                      .speculation = r.speculation};
  };
  // Workers that do both phases are alike: one is looked at. Those of one phase share their requests.
  double alike = c.disaggregated ? 1 : real(c.workers);
  SimulationOptions options{.prefill_deadline_s = r.limits.ttft_s, .token_deadline_s = r.limits.tpot_s};
  bool closed = r.trace.empty() && r.traffic.arrival == Arrival::closed;
  if (closed) options.users = std::max<int64_t>(1, std::llround(c.concurrency / alike));
  std::vector<Request> requests = requests_of(r, alike, options.users);
  if (!c.disaggregated) return simulate(worker(c.layout), requests, options);
  return simulate(Disaggregated{.prefill = worker(c.layout),
                                .decode = worker(c.decode_layout),
                                .prefill_workers = real(c.workers),
                                .decode_workers = real(c.decode_workers)},
                  requests, options);
}

class Judge {
 public:
  explicit Judge(const SearchRequest& request) : r_(request) {
    bool has_limits = r_.limits.ttft_s > 0 || r_.limits.tpot_s > 0;
    at_ = r_.percentile ? r_.percentile : &Percentiles::mean;
    judges_ = has_limits && (r_.percentile != nullptr || !r_.trace.empty());
  }

  bool judges() const { return judges_; }
  bool is_tired() const { return simulations_ >= kMostSimulations; }

  // Whether the candidate may stand; its simulation is then in it.
  bool accept(Candidate& c) {
    ++simulations_;
    Result<Simulation> s = simulate_candidate(r_, c);
    if (!s) {
      c.not_simulated = s.error().message;
      return !judges_ && r_.trace.empty();
    }
    c.simulation = *s;
    least_ttft_ = std::min(least_ttft_, s->ttft_s.*at_);
    least_tpot_ = std::min(least_tpot_, s->tpot_s.*at_);
    return !judges_ || r_.limits.kept_by(s->ttft_s.*at_, s->tpot_s.*at_, c.estimate.tokens_per_s_gpu);
  }

  void explain(SearchOutcome& outcome, const std::string& refusal) const {
    auto add = [&](const char* what, double needed, double limit) {
      if (limit > 0 && needed > limit)
        outcome.infeasible.push_back({.constraint = fmt::format("{}, simulated", what),
                                      .needed = 1000 * needed,
                                      .available = 1000 * limit,
                                      .unit = "ms"});
    };
    if (std::isfinite(least_ttft_)) {
      add("time to first token", least_ttft_, r_.limits.ttft_s);
      add("time per output token", least_tpot_, r_.limits.tpot_s);
    }
    if (outcome.infeasible.empty())
      outcome.infeasible.push_back({.constraint = refusal.empty() ? "all limits at once, simulated" : refusal,
                                    .needed = 1,
                                    .available = 0,
                                    .unit = "deployments"});
  }

 private:
  const SearchRequest& r_;
  double Percentiles::*at_;
  bool judges_;
  int simulations_ = 0;
  double least_ttft_ = INFINITY, least_tpot_ = INFINITY;
};

// The same workers at lower loads, the highest first.
std::vector<Candidate> lower_loads(const Candidate& best, const SearchOutcome& outcome) {
  std::vector<Candidate> list;
  for (const Candidate& c : outcome.evaluated)
    if (c.same_workers(best) && c.concurrency < best.concurrency && c.meets) list.push_back(c);
  std::sort(list.begin(), list.end(),
            [](const Candidate& a, const Candidate& b) { return a.concurrency > b.concurrency; });
  return list;
}

}  // namespace

void simulate_finalists(const SearchRequest& request, SearchOutcome& outcome) {
  Judge judge(request);
  auto wanted = static_cast<size_t>(std::max<int64_t>(0, request.finalists));
  if (!judge.judges() && request.trace.empty()) {
    for (size_t i = 0; i < std::min(wanted, outcome.ranked.size()); ++i) judge.accept(outcome.ranked[i]);
    return;
  }
  if (outcome.ranked.empty() || wanted == 0) return;
  std::vector<Candidate> accepted;
  std::string refusal;
  for (Candidate& c : outcome.ranked) {
    if (accepted.size() >= wanted || judge.is_tired()) break;
    std::vector<Candidate> loads = {c};
    for (Candidate& lower : lower_loads(c, outcome)) loads.push_back(std::move(lower));
    for (Candidate& load : loads) {
      bool stands = judge.accept(load);
      if (refusal.empty()) refusal = load.not_simulated;
      if (!stands) continue;
      accepted.push_back(load);
      break;
    }
  }
  outcome.ranked = std::move(accepted);
  if (outcome.ranked.empty()) judge.explain(outcome, refusal);
}

}  // namespace tessera::plan::serving
