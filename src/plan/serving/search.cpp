#include "plan/serving/search.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "core/clock.h"
#include "core/nearest.h"
#include "core/numbers.h"
#include "plan/serving/finalists.h"

namespace tessera::plan::serving {
namespace {

int64_t most_heads(const Blueprint& model) {
  int64_t heads = 1;
  for (const Layer& layer : model.kinds) heads = std::max(heads, layer.mixer.heads);
  return heads;
}

int64_t experts_of(const Blueprint& model) {
  for (const Layer& layer : model.kinds)
    if (layer.ffn.kind == FfnKind::moe) return layer.ffn.experts;
  return 0;
}

// Concurrencies to try where none is given: powers of two times 1 and 1.5.
std::vector<double> loads(const Traffic& traffic, double gpus) {
  if (traffic.arrival == Arrival::open || traffic.concurrency > 0) return {traffic.concurrency};
  std::vector<double> list;
  for (double users = 1; users <= 1024 * gpus; users *= 2) {
    list.push_back(users);
    if (users >= 2) list.push_back(1.5 * users);
  }
  return list;
}

class Search {
 public:
  explicit Search(const SearchRequest& request) : r_(request) {}

  void aggregated_workers() {
    auto layouts =
        r_.layout ? std::vector<WorkerLayout>{*r_.layout} : worker_layouts(r_.model, r_.device, r_.gpus);
    for (const WorkerLayout& layout : layouts) {
      int64_t workers = r_.gpus / layout.gpus();
      if (workers < 1) continue;
      ++outcome.space;
      Deployment d = deployment(layout);
      Candidate candidate{.layout = layout, .decode_layout = {}, .workers = workers};
      candidate.memory = rank_memory(d);
      run(candidate, [&](const Traffic& traffic) { return aggregated(d, traffic, real(workers)); });
    }
  }

  // Prefill and decode workers, all splits of the accelerators between them in eighths. The two do not
  // interfere, so each side keeps only what is best by itself: of a size, the most prompts per second and the
  // shortest prompt; the Pareto front of time and throughput of answers.
  void disaggregated_workers() {
    if (r_.layout || r_.gpus < 2) return;
    std::vector<WorkerLayout> layouts;
    for (const WorkerLayout& layout : worker_layouts(r_.model, r_.device, std::max<int64_t>(1, r_.gpus / 2)))
      if (layout.pp == 1) layouts.push_back(layout);
    auto fronts = best_prefill(layouts), backs = best_decode(layouts);
    for (const WorkerLayout& front : fronts)
      for (const WorkerLayout& back : backs) pairs(front, back);
  }

  SearchOutcome outcome;

 private:
  Deployment deployment(const WorkerLayout& layout, bool one_phase = false) const {
    return {.model = r_.model,
            .device = r_.device,
            .engine = one_phase ? r_.one_phase_engine : r_.engine,
            .layout = layout,
            .formats = r_.formats,
            .speculation = r_.speculation};
  }

  std::vector<WorkerLayout> best_prefill(const std::vector<WorkerLayout>& layouts) const {
    struct Side {
      WorkerLayout layout;
      double seconds, rate;  // of a prompt alone; prompts per second and accelerator
    };
    std::vector<Side> sides;
    for (const WorkerLayout& layout : layouts) {
      Deployment d = deployment(layout, true);
      if (!check(d) || max_sequences(d, r_.traffic.input_tokens) < 1) continue;
      StepModel model(d);
      double tokens = r_.traffic.input_tokens - r_.traffic.cached_prefix;
      double seconds =
          model.seconds({.prefill_tokens = tokens, .prefill_sequences = 1, .prefill_span = tokens / 2});
      sides.push_back({layout, seconds, real(layout.dp) / seconds / real(layout.gpus())});
    }
    return front_of(sides);
  }

  std::vector<WorkerLayout> best_decode(const std::vector<WorkerLayout>& layouts) const {
    struct Side {
      WorkerLayout layout;
      double seconds, rate;  // of a token; tokens per second and accelerator
    };
    std::vector<Side> sides;
    double context = r_.traffic.input_tokens + r_.traffic.output_tokens / 2;
    for (const WorkerLayout& layout : layouts) {
      Deployment d = deployment(layout, true);
      if (!check(d)) continue;
      double most = max_sequences(d, context);
      if (most < 1) continue;
      StepModel model(d);
      for (double batch = 1; batch <= most; batch *= 2) {
        double seconds = model.seconds({.decode_sequences = batch, .decode_context = context});
        sides.push_back({layout, seconds, batch * real(layout.dp) / seconds / real(layout.gpus())});
      }
    }
    return front_of(sides);
  }

  // Of each number of accelerators, layouts on the front of short times and high rates, each once, at most
  // four: a wide worker that is a little better than a narrow one may leave accelerators that no other fits on.
  template <class Side>
  static std::vector<WorkerLayout> front_of(std::vector<Side> sides) {
    std::sort(sides.begin(), sides.end(), [](const Side& a, const Side& b) { return a.seconds < b.seconds; });
    std::map<int64_t, std::vector<WorkerLayout>> fronts;
    std::map<int64_t, double> best;
    for (const Side& side : sides) {
      int64_t size = side.layout.gpus();
      if (side.rate <= best[size] * 1.02) continue;
      best[size] = side.rate;
      auto& front = fronts[size];
      if (std::find(front.begin(), front.end(), side.layout) == front.end()) front.push_back(side.layout);
    }
    std::vector<WorkerLayout> all;
    for (auto& [size, front] : fronts) {
      while (front.size() > 4) front.erase(front.begin() + static_cast<std::ptrdiff_t>(front.size() / 2));
      all.insert(all.end(), front.begin(), front.end());
    }
    return all;
  }

  void pairs(const WorkerLayout& front, const WorkerLayout& back) {
    Deployment prefill = deployment(front, true), decode = deployment(back, true);
    int64_t last = 0;
    for (int64_t eighth = 1; eighth < 8; ++eighth) {
      int64_t prefill_workers = r_.gpus * eighth / 8 / front.gpus();
      int64_t decode_workers = (r_.gpus - prefill_workers * front.gpus()) / back.gpus();
      if (prefill_workers < 1 || decode_workers < 1 || prefill_workers == last) continue;
      last = prefill_workers;
      ++outcome.space;
      Candidate candidate{.disaggregated = true,
                          .layout = front,
                          .decode_layout = back,
                          .workers = prefill_workers,
                          .decode_workers = decode_workers};
      candidate.memory = rank_memory(prefill);
      candidate.decode_memory = rank_memory(decode);
      Disaggregated pair{.prefill = prefill,
                         .decode = decode,
                         .prefill_workers = real(prefill_workers),
                         .decode_workers = real(decode_workers)};
      run(candidate, [&](const Traffic& traffic) { return disaggregated(pair, traffic); });
    }
  }

  template <class Evaluate>
  void run(Candidate candidate, Evaluate evaluate) {
    std::optional<Candidate> best;
    for (double users : loads(r_.traffic, real(r_.gpus))) {
      Traffic traffic = r_.traffic;
      traffic.concurrency = users;
      Result<Estimate> estimate = evaluate(traffic);
      ++outcome.points;
      if (!estimate) {
        ++outcome.refused;
        remember_shortage(candidate);
        return;
      }
      candidate.concurrency = users;
      candidate.estimate = *estimate;
      finish(candidate);
      // A load that is searched stops where waiting begins: more users give nothing but a queue.
      if (r_.traffic.concurrency == 0 && r_.traffic.arrival == Arrival::closed && estimate->load > 1) break;
      outcome.evaluated.push_back(candidate);
      bool better = !best || aim_value(r_.aim, candidate.estimate, candidate.cost) <
                                 aim_value(r_.aim, best->estimate, best->cost);
      if (candidate.meets && better) best = candidate;
    }
    if (best) outcome.ranked.push_back(*best);
  }

  void finish(Candidate& c) const {
    Estimate& e = c.estimate;
    // Accelerators that no worker uses are paid for too, and idle.
    double used = e.gpus / real(r_.gpus);
    e.tokens_per_s_gpu = e.tokens_per_s / real(r_.gpus);
    e.activity.multiplying *= used, e.activity.streaming *= used;
    c.cost = serving_cost(r_.device, e.activity, e.tokens_per_s_gpu);
    bool keeps_up = r_.traffic.arrival != Arrival::open || e.load <= 1;
    c.meets = keeps_up && r_.limits.kept_by(e.ttft_s, e.tpot_s, e.tokens_per_s_gpu);
  }

  void remember_shortage(const Candidate& c) {
    const RankMemory& m = c.memory;
    double tokens = r_.traffic.input_tokens + r_.traffic.output_tokens;
    double sequence = sequence_bytes(deployment(c.layout, c.disaggregated), tokens);
    double needed = (m.weights + m.workspace + sequence) / 1e9;
    if (smallest_ == 0 || needed < smallest_) smallest_ = needed;
    shortage_ = {.constraint = "memory of one accelerator, for weights and one sequence",
                 .needed = smallest_,
                 .available = m.total / 1e9,
                 .unit = "GB"};
  }

 public:
  void explain() {
    if (!outcome.ranked.empty()) return;
    if (outcome.evaluated.empty()) {
      if (smallest_ > 0) outcome.infeasible.push_back(shortage_);
      return;
    }
    auto least = [&](auto of) {
      double value = of(outcome.evaluated.front());
      for (const Candidate& c : outcome.evaluated) value = std::min(value, of(c));
      return value;
    };
    const Limits& limits = r_.limits;
    double ttft = least([](const Candidate& c) { return c.estimate.ttft_s; });
    double tpot = least([](const Candidate& c) { return c.estimate.tpot_s; });
    double load = least([](const Candidate& c) { return c.estimate.load; });
    double rate = -least([](const Candidate& c) { return -c.estimate.tokens_per_s_gpu; });
    if (limits.ttft_s > 0 && ttft > limits.ttft_s)
      add("time to first token", "ms", 1000 * ttft, 1000 * limits.ttft_s);
    if (limits.tpot_s > 0 && tpot > limits.tpot_s)
      add("time per output token", "ms", 1000 * tpot, 1000 * limits.tpot_s);
    if (rate < limits.least_rate) add("tokens per second and GPU", "1/s", limits.least_rate, rate);
    if (r_.traffic.arrival == Arrival::open && load > 1)
      add("request rate", "1/s", r_.traffic.rate, r_.traffic.rate / load);
    if (outcome.infeasible.empty()) explain_together();
  }

 private:
  // Each limit can be kept, but not all by one deployment: the nearest miss of one that keeps the others.
  void explain_together() {
    const Limits& limits = r_.limits;
    double ttft = INFINITY, tpot = INFINITY, rate = 0;
    for (const Candidate& c : outcome.evaluated) {
      const Estimate& e = c.estimate;
      Limits others = limits;
      others.tpot_s = 0;
      if (others.kept_by(e.ttft_s, e.tpot_s, e.tokens_per_s_gpu)) tpot = std::min(tpot, e.tpot_s);
      others = limits, others.ttft_s = 0;
      if (others.kept_by(e.ttft_s, e.tpot_s, e.tokens_per_s_gpu)) ttft = std::min(ttft, e.ttft_s);
      others = limits, others.least_rate = 0;
      if (others.kept_by(e.ttft_s, e.tpot_s, e.tokens_per_s_gpu)) rate = std::max(rate, e.tokens_per_s_gpu);
    }
    if (limits.ttft_s > 0 && std::isfinite(ttft))
      add("time to first token, with the other limits kept", "ms", 1000 * ttft, 1000 * limits.ttft_s);
    if (limits.tpot_s > 0 && std::isfinite(tpot))
      add("time per output token, with the other limits kept", "ms", 1000 * tpot, 1000 * limits.tpot_s);
    if (limits.least_rate > 0 && rate > 0)
      add("tokens per second and GPU, with the other limits kept", "1/s", limits.least_rate, rate);
    if (outcome.infeasible.empty()) add("all limits at once", "deployments", 1, 0);
  }

  void add(const char* constraint, const char* unit, double needed, double available) {
    outcome.infeasible.push_back(
        {.constraint = constraint, .needed = needed, .available = available, .unit = unit});
  }

  const SearchRequest& r_;
  double smallest_ = 0;
  Infeasible shortage_;
};

std::vector<Candidate> pareto(std::vector<Candidate> points) {
  std::sort(points.begin(), points.end(), [](const Candidate& a, const Candidate& b) {
    return a.estimate.tokens_per_s_user > b.estimate.tokens_per_s_user;
  });
  std::vector<Candidate> front;
  for (const Candidate& point : points)
    if (front.empty() || point.estimate.tokens_per_s_gpu > front.back().estimate.tokens_per_s_gpu * 1.001)
      front.push_back(point);
  return front;
}

// By the aim; what is equal in it to a thousandth, by the time of a whole request.
bool is_better(const SearchRequest& r, const Candidate& a, const Candidate& b) {
  auto thousandths = [&](const Candidate& c) {
    return std::round(1000 * std::log(std::max(1e-30, aim_value(r.aim, c.estimate, c.cost))));
  };
  if (double mine = thousandths(a), other = thousandths(b); mine != other) return mine < other;
  auto whole = [&](const Estimate& e) { return e.ttft_s + e.tpot_s * r.traffic.output_tokens; };
  return whole(a.estimate) < whole(b.estimate);
}

}  // namespace

std::vector<WorkerLayout> worker_layouts(const Blueprint& model, const Accelerator& device, int64_t gpus) {
  std::vector<WorkerLayout> layouts;
  int64_t experts = experts_of(model), heads = most_heads(model);
  int64_t widest = std::min(gpus, std::max<int64_t>(device.domain, 8));
  for (int64_t tp = 1; tp <= std::min(widest, heads); tp *= 2)
    for (int64_t pp = 1; tp * pp <= gpus && pp <= std::min<int64_t>(16, model.layers()); pp *= 2)
      for (int64_t dp = 1; tp * pp * dp <= gpus; dp *= 2) {
        // Attention-DP shares experts; without experts it is the same as more workers.
        if (dp > 1 && experts == 0) break;
        // Experts as whole as ranks and experts allow, or every expert over all ranks: what lies between them
        // is between.
        std::vector<int64_t> ways = {1};
        int64_t whole = std::min(experts, tp * dp);
        if (whole > 1 && tp * dp % whole == 0) ways.push_back(whole);
        if (tp * dp > 8 && ways.size() > 1) ways.erase(ways.begin());
        for (int64_t ep : ways) {
          layouts.push_back(
              {.tp = tp, .pp = pp, .dp = dp, .moe_tp = experts > 0 ? tp * dp / ep : 1, .moe_ep = ep});
        }
      }
  return layouts;
}

Result<WorkerLayout> parse_worker_layout(const std::string& text) {
  WorkerLayout layout{.moe_tp = 0};
  const std::vector<std::pair<std::string, int64_t WorkerLayout::*>> keys = {{"tp", &WorkerLayout::tp},
                                                                             {"pp", &WorkerLayout::pp},
                                                                             {"dp", &WorkerLayout::dp},
                                                                             {"ep", &WorkerLayout::moe_ep},
                                                                             {"moe_tp", &WorkerLayout::moe_tp}};
  std::vector<std::string> seen;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = std::min(text.find(',', at), text.size());
    std::string part = text.substr(at, end - at), key = part.substr(0, part.find('='));
    std::vector<std::string> names;
    int64_t WorkerLayout::*member = nullptr;
    for (const auto& [name, field] : keys) {
      names.push_back(name);
      if (name == key) member = field;
    }
    if (!member)
      return invalid("layout '{}': no key '{}'{}; known: tp, pp, dp, ep, moe_tp", text, key,
                     did_you_mean(key, names));
    const char* last = part.data() + part.size();
    const char* first = part.data() + std::min(part.size(), key.size() + 1);
    if (std::find(seen.begin(), seen.end(), key) != seen.end())
      return invalid("layout '{}' gives {} twice", text, key);
    seen.push_back(key);
    auto [stop, error] = std::from_chars(first, last, layout.*member);
    if (error != std::errc() || stop != last || layout.*member < 1)
      return invalid("layout '{}': {} must be a positive integer, got '{}'", text, key,
                     std::string(first, last));
    at = end + 1;
  }
  if (layout.moe_tp == 0) layout.moe_tp = std::max<int64_t>(1, layout.tp * layout.dp / layout.moe_ep);
  return layout;
}

Result<SearchOutcome> search(const SearchRequest& request) {
  if (request.gpus < 1) return invalid("a deployment needs at least one accelerator, got {}", request.gpus);
  if (request.traffic.input_tokens < 1 || request.traffic.output_tokens < 1)
    return invalid("prompts and answers have at least one token, got {:.0f} and {:.0f}",
                   request.traffic.input_tokens, request.traffic.output_tokens);
  if (request.layout && request.layout->gpus() > request.gpus)
    return invalid("layout {} needs {} accelerators but {} are there", to_string(*request.layout),
                   request.layout->gpus(), request.gpus);
  auto start = Clock::now();
  if (request.layout) {
    Deployment d{.model = request.model,
                 .device = request.device,
                 .engine = request.engine,
                 .layout = *request.layout,
                 .formats = request.formats,
                 .speculation = request.speculation};
    TESSERA_RETURN_IF_ERROR(check(d));
    bool shares_experts = request.layout->moe_ep > 1 || request.layout->dp > 1;
    if (shares_experts && experts_of(request.model) == 0)
      return invalid(
          "layout {} shares experts over ranks, but {} has none; more workers are what is left of --gpus",
          to_string(*request.layout), request.model.name);
  }
  Search run(request);
  run.aggregated_workers();
  run.disaggregated_workers();
  run.explain();
  SearchOutcome outcome = std::move(run.outcome);
  auto by_aim = [&](const Candidate& a, const Candidate& b) { return is_better(request, a, b); };
  std::stable_sort(outcome.ranked.begin(), outcome.ranked.end(), by_aim);
  outcome.front = pareto(outcome.evaluated);
  simulate_finalists(request, outcome);
  std::stable_sort(outcome.ranked.begin(), outcome.ranked.end(), by_aim);
  outcome.seconds = seconds_since(start);
  return outcome;
}

}  // namespace tessera::plan::serving
