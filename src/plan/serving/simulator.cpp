#include "plan/serving/simulator.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <queue>

#include "plan/serving/clients.h"
#include "plan/serving/lane.h"

namespace tessera::plan::serving {
namespace {

Status named(Status status, size_t request) {
  return status ? status : status.error().within(fmt::format("request {}", request + 1));
}

// Workers for prompts, then workers for answers.
class Tandem {
 public:
  Tandem(const Disaggregated& pair, Clients& clients, int64_t block_tokens) : pair_(pair), clients_(clients) {
    auto lanes = [](const Deployment& d, double workers) {
      return std::llround(static_cast<double>(d.layout.dp * d.layout.pp) * workers);
    };
    for (int64_t i = lanes(pair.prefill, pair.prefill_workers); i > 0; --i)
      fronts_.emplace_back(pair.prefill, block_tokens);
    for (int64_t i = lanes(pair.decode, pair.decode_workers); i > 0; --i)
      backs_.emplace_back(pair.decode, block_tokens);
  }

  Status run() {
    while (!clients_.all_answered()) {
      now_ = std::min(clients_.next_s(), moving_.empty() ? Clients::kNever : moving_.top().at_s);
      for (auto* station : {&fronts_, &backs_})
        for (Station& one : *station) now_ = std::min(now_, one.lane.end_s());
      end_events();
      TESSERA_RETURN_IF_ERROR(hand_over());
      for (auto* station : {&fronts_, &backs_})
        for (Station& one : *station)
          if (one.lane.is_idle()) one.lane.plan(now_);
    }
    return {};
  }

  void report(Simulation& s) const {
    for (const auto* station : {&fronts_, &backs_})
      for (const Station& one : *station) s.steps += one.lane.steps, s.preemptions += one.lane.preemptions;
    for (const Station& back : backs_)
      s.mean_running += back.lane.running_time / now_ / static_cast<double>(backs_.size());
  }
  double now() const { return now_; }

 private:
  struct Station {
    Station(const Deployment& d, int64_t block_tokens) : lane(d, block_tokens) {}
    Lane lane;
    std::vector<size_t> requests;  // by their numbers in the lane
  };
  struct Move {  // of a cache to its decode worker
    double at_s;
    size_t request;
    bool operator>(const Move& other) const { return at_s > other.at_s; }
  };

  void end_events() {
    for (Station& front : fronts_) {
      if (front.lane.end_s() > now_) continue;
      front.lane.end();
      for (size_t own : front.lane.ended()) {
        size_t request = front.requests[own];
        double prompt = static_cast<double>(clients_[request].prompt);
        moving_.push({now_ + transfer_seconds(pair_.prefill, prompt), request});
      }
    }
    for (Station& back : backs_) {
      if (back.lane.end_s() > now_) continue;
      back.lane.end();
      for (size_t own : back.lane.ended()) clients_.answered(back.requests[own], now_);
    }
  }

  Status hand_over() {
    for (; !moving_.empty() && moving_.top().at_s <= now_; moving_.pop()) {
      size_t number = moving_.top().request;
      const Request& request = clients_[number];
      clients_.first_token(number, now_);
      if (request.answer == 1)
        clients_.answered(number, now_);
      else
        TESSERA_RETURN_IF_ERROR(give(backs_, number, request.prompt + 1, request.answer - 1, request.prompt));
    }
    while (clients_.next_s() <= now_) {
      size_t number = clients_.send();
      const Request& request = clients_[number];
      TESSERA_RETURN_IF_ERROR(give(fronts_, number, request.prompt, 1, request.cached));
    }
    return {};
  }

  Status give(std::deque<Station>& to, size_t number, int64_t prompt, int64_t answer, int64_t cached) {
    auto least = std::min_element(to.begin(), to.end(), [](const Station& a, const Station& b) {
      return a.lane.outstanding() < b.lane.outstanding();
    });
    least->requests.push_back(number);
    return named(least->lane.submit(prompt, answer, cached, now_), number);
  }

  const Disaggregated& pair_;
  Clients& clients_;
  std::deque<Station> fronts_, backs_;  // lanes do not move
  std::priority_queue<Move, std::vector<Move>, std::greater<>> moving_;
  double now_ = 0;
};

}  // namespace

Result<Simulation> simulate(const Deployment& d, const std::vector<Request>& requests,
                            const SimulationOptions& options) {
  TESSERA_RETURN_IF_ERROR(check(d));
  if (requests.empty()) return invalid("no requests to simulate");
  auto lanes = static_cast<size_t>(d.layout.dp * d.layout.pp);
  std::vector<Request> own;
  for (size_t i = 0; i < requests.size(); i += lanes) own.push_back(requests[i]);
  int64_t users = options.users / static_cast<int64_t>(lanes);
  Clients clients(std::move(own), options.users > 0 ? std::max<int64_t>(1, users) : 0, d.engine.prompt_s);
  Lane lane(d, options.block_tokens);
  double now = 0;
  while (!clients.all_answered()) {
    now = std::min(clients.next_s(), lane.end_s());
    if (lane.end_s() == now) {
      lane.end();
      for (size_t request : lane.first_tokens()) clients.first_token(request, now);
      for (size_t request : lane.ended()) clients.answered(request, now);
    }
    while (clients.next_s() <= now) {
      size_t request = clients.send();
      const Request& r = clients[request];
      TESSERA_RETURN_IF_ERROR(named(lane.submit(r.prompt, r.answer, r.cached, now), request));
    }
    if (lane.is_idle()) lane.plan(now);
  }
  Simulation s = clients.report(options, now);
  s.steps = lane.steps;
  s.preemptions = lane.preemptions;
  s.mean_running = lane.running_time / now;
  s.tokens_per_s *= static_cast<double>(lanes);
  s.tokens_per_s_gpu = s.tokens_per_s / static_cast<double>(d.layout.gpus());
  return s;
}

Result<Simulation> simulate(const Disaggregated& pair, const std::vector<Request>& requests,
                            const SimulationOptions& options) {
  TESSERA_RETURN_IF_ERROR(check(pair.prefill));
  TESSERA_RETURN_IF_ERROR(check(pair.decode));
  if (requests.empty()) return invalid("no requests to simulate");
  // A prefill worker takes a prompt whole: its steps have no answers to hold up.
  Disaggregated whole = pair;
  for (const Request& request : requests)
    whole.prefill.engine.budget_tokens =
        std::max(whole.prefill.engine.budget_tokens, static_cast<double>(request.prompt));
  Clients clients(requests, options.users, pair.prefill.engine.prompt_s);
  Tandem tandem(whole, clients, options.block_tokens);
  TESSERA_RETURN_IF_ERROR(tandem.run());
  Simulation s = clients.report(options, tandem.now());
  tandem.report(s);
  s.tokens_per_s_gpu = s.tokens_per_s / pair.gpus();
  return s;
}

}  // namespace tessera::plan::serving
