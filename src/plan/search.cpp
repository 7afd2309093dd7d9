#include "plan/search.h"

#include <algorithm>
#include <map>

#include "core/clock.h"

namespace tessera::plan {
namespace {

std::vector<int64_t> divisors(int64_t n) {
  std::vector<int64_t> low, high;
  for (int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    low.push_back(d);
    if (d * d != n) high.push_back(n / d);
  }
  low.insert(low.end(), high.rbegin(), high.rend());
  return low;
}

// Candidates are cheap to write down; what no model admits (ep without experts, cp in training) is left out.
template <class Visit>
void for_each_degrees(const Request& request, Visit visit) {
  const ModelSpec& model = request.model;
  for (int64_t tp : divisors(request.processes))
    for (int64_t pp : divisors(request.processes / tp)) {
      if (tp > model.heads || pp > model.layers) continue;
      for (int64_t cp : divisors(request.processes / tp / pp)) {
        if (request.trainable && cp > 1) continue;
        int64_t replicas = request.processes / tp / pp / cp;
        for (int64_t fsdp : divisors(replicas))
          for (int64_t ep : divisors(model.moe.experts > 0 ? replicas * cp : 1)) {
            if (ep > 1 && model.moe.experts % ep != 0) continue;
            Layout layout;
            layout.tp = tp, layout.pp = pp, layout.cp = cp, layout.fsdp = fsdp, layout.dp = replicas / fsdp;
            layout.ep = ep;
            visit(layout);
          }
      }
    }
}

std::vector<Layout> candidates(const Request& request) {
  std::vector<Layout> all;
  if (request.layout) return {*request.layout};
  for_each_degrees(request, [&](Layout layout) {
    for (PipelineSchedule schedule : {PipelineSchedule::one_f_one_b, PipelineSchedule::gpipe}) {
      if (schedule == PipelineSchedule::gpipe && layout.pp == 1) continue;  // one stage: the same table
      for (Recompute recompute : {Recompute::none, Recompute::full}) {
        layout.schedule = schedule, layout.recompute = recompute;
        all.push_back(layout);
      }
    }
  });
  return all;
}

Work work_of(const Request& request, const Layout& layout, int64_t micro_batch) {
  Work work = request.work;
  work.micro_batch = micro_batch;
  if (!request.free_blocks) return work;
  work.tp_blocks = layout.tp;
  work.seq_chunks = layout.tp * layout.cp;
  return work;
}

// What a run can hold: a device each, or the host shared by all.
double available_bytes(const Cluster& cluster, int64_t processes) {
  double each =
      cluster.shares_cores() ? cluster.memory_bytes / static_cast<double>(processes) : cluster.memory_bytes;
  return each - cluster.reserved_bytes;
}

void predict_memory(const Request& request, Prediction& p) {
  double sum = 0;
  for (int64_t stage = 0; stage < p.layout.pp; ++stage) {
    p.memory_by_stage.push_back(stage_memory(request.model, p.work, p.layout, stage));
    p.peak_bytes = std::max(p.peak_bytes, p.memory_by_stage.back().total());
    sum += p.memory_by_stage.back().total();
  }
  // Processes of one host share its memory: the mean rank decides, not the fullest.
  double needed = request.cluster.shares_cores() ? sum / static_cast<double>(p.layout.pp) : p.peak_bytes;
  p.fits = needed <= available_bytes(request.cluster, p.layout.processes());
}

// The reason of a refusal without its figures, so that a thousand candidates give a few lines.
struct Refusals {
  std::map<std::string, int64_t> by_reason;
  double least_bytes = 0;
};

std::vector<Infeasible> explain(const Request& request, const Refusals& refusals) {
  std::vector<Infeasible> reasons;
  if (refusals.least_bytes > 0)
    reasons.push_back({"memory of a rank", refusals.least_bytes / (1 << 30),
                       available_bytes(request.cluster, request.processes) / (1 << 30), "GiB"});
  if (!reasons.empty()) return reasons;  // valid layouts exist, all too big
  for (const auto& [reason, times] : refusals.by_reason)
    reasons.push_back({reason, static_cast<double>(times), 0, "candidates refused"});
  return reasons;
}

Status check_given(const Request& request) {
  if (!request.layout) return {};
  if (request.layout->processes() != request.processes)
    return invalid("layout: {} uses {} processes, but {} were asked for", to_string(*request.layout),
                   request.layout->processes(), request.processes);
  Work work = work_of(request, *request.layout, request.work.micro_batch);
  if (request.layout->virtual_stages > 1)
    return invalid("layout: virtual_stages={} cannot be planned yet; leave it out",
                   request.layout->virtual_stages);
  return validate(request.model, work, *request.layout, request.trainable);
}

Status check_request(const Request& request) {
  if (request.processes < 1) return invalid("plan: {} processes; expected at least one", request.processes);
  const Work& work = request.work;
  if (work.seq < 1 || work.global_batch < 1 || work.micro_batch < 1)
    return invalid("plan: sequence {}, batch {} and micro-batch {} must be positive", work.seq,
                   work.global_batch, work.micro_batch);
  if (request.model.moe.experts > 0 && request.model.moe.top_k < 1)
    return invalid("plan: a model with {} experts needs top_k of at least one", request.model.moe.experts);
  return check_given(request);
}

bool faster(const Prediction& a, const Prediction& b) {
  // Times that differ by the rounding of sums are equal: GPipe waits as long as 1F1B and holds more.
  auto time = [](const Prediction& p) { return static_cast<float>(p.step_time_s); };
  if (time(a) != time(b)) return time(a) < time(b);
  if (a.peak_bytes != b.peak_bytes) return a.peak_bytes < b.peak_bytes;
  return to_string(a.layout) < to_string(b.layout);
}

// Seconds of a step by the names that users read.
std::vector<std::pair<std::string, double>> causes(const StepTime& time) {
  return {{"compute", time.seconds.compute},
          {"tp communication", time.seconds.tp},
          {"cp communication", time.seconds.cp},
          {"ep communication", time.seconds.ep},
          {"dp and fsdp communication", time.seconds.dp},
          {"pipeline transfers", time.pp},
          {"pipeline bubble", time.bubble},
          {"optimizer", time.optimizer},
          {"host", time.seconds.host}};
}

}  // namespace

Prediction predict(const Request& request, const Layout& layout, const Work& work) {
  const Cluster& cluster = request.cluster;
  Prediction p{layout, work, step_time(request.model, work, layout, cluster, request.threads)};
  p.step_time_s = p.time.step_s;
  p.step_time_s_low = p.step_time_s * (1 - std::min(cluster.relative_error, 0.9));
  p.step_time_s_high = p.step_time_s * (1 + cluster.relative_error);
  p.tokens_per_s = p.tokens() / p.step_time_s;
  double flops = 3 * forward_flops_per_token(request.model, work.seq);
  p.flops_per_s_per_device = flops * p.tokens_per_s / static_cast<double>(layout.processes());
  double peak = cluster.peak(work.precision);
  if (cluster.shares_cores())  // the peak is a core's
    peak *= std::min(1.0, static_cast<double>(cluster.cores) / static_cast<double>(layout.processes()));
  p.mfu = peak > 0 ? p.flops_per_s_per_device / peak : 0;
  predict_memory(request, p);
  return p;
}

Result<SearchResult> search(const Request& request) {
  TESSERA_RETURN_IF_ERROR(check_request(request));
  Clock::time_point start = Clock::now();
  SearchResult result;
  Refusals refusals;
  std::vector<int64_t> micro_batches = request.micro_batches;
  if (micro_batches.empty()) micro_batches = {request.work.micro_batch};
  for (const Layout& layout : candidates(request))
    for (int64_t micro_batch : micro_batches) {
      ++result.space;
      Work work = work_of(request, layout, micro_batch);
      Status valid = validate(request.model, work, layout, request.trainable);
      if (!valid) {
        ++result.pruned;
        ++refusals.by_reason[valid.error().message];
        continue;
      }
      Prediction p = predict(request, layout, work);
      ++result.evaluated;
      if (p.fits)
        result.ranked.push_back(std::move(p));
      else if (refusals.least_bytes == 0 || p.peak_bytes < refusals.least_bytes)
        refusals.least_bytes = p.peak_bytes;
    }
  std::sort(result.ranked.begin(), result.ranked.end(), faster);
  if (result.ranked.empty()) result.infeasible = explain(request, refusals);
  result.seconds = seconds_since(start);
  return result;
}

Result<std::vector<Layout>> choose(const ModelSpec& model, const Work& work, const Cluster& cluster,
                                   int64_t processes) {
  for (int64_t count = processes; count >= 1; --count) {
    TESSERA_ASSIGN_OR_RETURN(SearchResult found, search({model, work, cluster, count}));
    if (found.ranked.empty()) continue;
    std::vector<Layout> layouts;
    for (const Prediction& prediction : found.ranked) layouts.push_back(prediction.layout);
    return layouts;
  }
  return make_error(ErrorCode::resource_exhausted,
                    "no layout of equal work fits on {} or fewer processes of cluster {}", processes,
                    cluster.name);
}

std::string bound_by(const Prediction& prediction) {
  auto list = causes(prediction.time);
  auto most = std::max_element(list.begin(), list.end(), [](auto& a, auto& b) { return a.second < b.second; });
  return fmt::format("{} {:.0f} %", most->first, 100 * most->second / prediction.step_time_s);
}

std::string why_slower(const Prediction& loser, const Prediction& winner) {
  auto lost = causes(loser.time), won = causes(winner.time);
  size_t worst = 0;
  for (size_t i = 1; i < lost.size(); ++i)
    if (lost[i].second - won[i].second > lost[worst].second - won[worst].second) worst = i;
  double percent = 100 * (loser.step_time_s / winner.step_time_s - 1);
  if (percent < 0.05) return "equal";
  return fmt::format("+{:.1f} %: more {}", percent, lost[worst].first);
}

}  // namespace tessera::plan
