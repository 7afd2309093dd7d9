#include "plan/serving/closed_form.h"

#include <algorithm>
#include <cmath>

#include "core/numbers.h"

namespace tessera::plan::serving {
namespace {

// One attention rank of one pipeline group: the unit that schedules.
struct Lane {
  const Deployment& d;
  const Traffic& traffic;
  StepModel model;
  double prompt;   // tokens to compute
  double context;  // mean cached tokens while decoding
  double limit;    // requests that run at once

  Lane(const Deployment& deployment, const Traffic& t)
      : d(deployment), traffic(t), model(deployment), prompt(std::max(1.0, t.input_tokens - t.cached_prefix)) {
    context = t.input_tokens + t.output_tokens / 2;
    double held = d.engine.reserves_output ? t.input_tokens + t.output_tokens : context;
    limit = max_sequences(d, held) / real(d.layout.pp);
  }

  double steps() const { return std::max(0.0, (traffic.output_tokens - 1) / d.speculation.tokens_per_step()); }
  StepLoad decode_load(double running) const {
    return {.decode_sequences = running, .decode_context = context};
  }
  double decode_step(double running) const { return model.seconds(decode_load(running)); }
  StepLoad prompt_load() const {
    return {
        .prefill_tokens = prompt, .prefill_sequences = 1, .prefill_span = traffic.cached_prefix + prompt / 2};
  }
  // Adds what a lane does that takes `prompts` per second and decodes in `decoding` of its time or all that is
  // left; `share`: of the accelerators that are such lanes.
  void add_activity(double prompts, double decoding, const StepBreakdown& decode, double share,
                    Activity& sum) const {
    StepBreakdown one = model.breakdown(prompt_load());
    double in_prompts = std::min(1.0, prompts * one.total());
    sum.add(one, share * in_prompts);
    sum.add(decode, share * std::min(decoding, 1 - in_prompts));
  }

  // Steps that compute one prompt, `together` of them in a row of chunks, beside `running` decoding sequences.
  struct Prompt {
    double seconds = 0;  // of the steps that hold it, decoding included
    double extra = 0;    // of them beyond decode steps
  };
  Prompt prefill(double running, double together) const {
    bool alone = d.engine.prefill == PrefillPolicy::first;
    double room = std::max(16.0, d.engine.budget_tokens - (alone ? 0 : running));
    double tokens = prompt * together;
    double chunks = std::max(1.0, tokens / room);
    StepLoad load{.prefill_tokens = tokens / chunks,
                  .prefill_sequences = together / chunks,
                  .prefill_span = traffic.cached_prefix + prompt / 2};
    if (!alone) load.decode_sequences = running, load.decode_context = context;
    double step = model.seconds(load);
    double beside = alone || running == 0 ? 0 : decode_step(running);
    return {.seconds = chunks * step, .extra = chunks * (step - beside)};
  }
};

Status fits(const Lane& lane) {
  RankMemory memory = rank_memory(lane.d);
  if (!memory.fits())
    return make_error(
        ErrorCode::resource_exhausted,
        "weights of {:.1f} GB and {:.1f} GB of workspace leave no cache in the {:.1f} GB of {} with {}",
        memory.weights / 1e9, memory.workspace / 1e9, memory.total / 1e9, lane.d.device.name,
        to_string(lane.d.layout));
  if (lane.limit * real(lane.d.layout.pp) >= 1) return {};
  return make_error(
      ErrorCode::resource_exhausted,
      "one request of {:.0f} tokens needs {:.1f} GB of cache but {:.1f} GB are left on {} with {}",
      lane.context, sequence_bytes(lane.d, lane.context) / 1e9, memory.cache / 1e9, lane.d.device.name,
      to_string(lane.d.layout));
}

// State of a lane with `running` requests in steady state.
struct Cycle {
  double ttft = 0, decoding = 0, tpot = 0;  // without waiting for admission
  double period() const { return ttft + decoding; }
};

// Prompts of other attention ranks delay this one when the ranks step together.
double lockstep_factor(const Lane& lane) {
  return std::pow(real(lane.d.layout.dp), lane.d.engine.lockstep);
}

// Prompts that share a step: those that arrive during one, or those that stay together.
double prompts_together(const Lane& lane, double running, double per_step) {
  double most = std::max(1.0, lane.d.engine.budget_tokens / lane.prompt);
  double clump = lane.traffic.equal_lengths ? std::min(running, lane.d.engine.clump) : 1;
  return std::clamp(per_step, std::min(most, std::max(1.0, clump)), most);
}

// A wait that the first prompt starts, that ends `steps` later and that takes in who comes meanwhile: mean of
// all who wait, `rate` coming per step.
double joint_wait(double steps, double rate) {
  double others = rate * steps;
  return steps * (1 + others / 2) / (1 + others);
}

// Steps that a prompt is held back on purpose while others decode; `per_step`: prompts of a lane that come in
// one.
double held_back_steps(const Lane& lane, double running, double per_step) {
  const Engine& engine = lane.d.engine;
  double lanes = real(lane.d.layout.dp), wait = engine.poll_steps / 2;
  if (engine.batch_wait_steps > 0) {
    double wanted = std::max(1.0, (engine.batch_wait_share * engine.budget_tokens - running) / lane.prompt) - 1;
    wait += joint_wait(std::min(engine.batch_wait_steps, wanted / per_step), per_step);
  }
  if (lanes > 1 && engine.dp_balance_steps > 0) {
    // Until each of the ranks has had one, at random: the harmonic sum of their number.
    double all = (std::log(lanes) + 0.577) / per_step;
    wait += joint_wait(std::min(engine.dp_balance_steps, all), per_step * lanes);
  }
  return wait;
}

// Between the arrival of a prompt and its first step: the end of running steps, and prompts that came before it
// when more come than a step's budget takes (M/D/1).
double admission_seconds(const Lane& lane, double running, double step, double per_step, double service) {
  if (running <= 1) return 0;
  const Engine& engine = lane.d.engine;
  double steps = lane.d.layout.dp > 1 ? engine.dp_admission_steps : engine.admission_steps;
  // A few users find the engine between two batches of arrivals.
  double wait =
      std::min(1.0, steps) + std::max(0.0, steps - 1) * std::min(1.0, running * real(lane.d.layout.dp) / 16);
  double full = std::min(0.95, per_step * lane.prompt / engine.budget_tokens);
  return (wait + held_back_steps(lane, running, per_step)) * step + full / (2 * (1 - full)) * service;
}

// Prompts that come while one waits start with it.
double gathered_prompts(const Lane& lane, double per_step) {
  const Engine& engine = lane.d.engine;
  return per_step * std::max({1.0, engine.poll_steps, engine.batch_wait_steps});
}

Cycle steady_cycle(const Lane& lane, double running) {
  Cycle cycle;
  double waves = std::max(1.0, lane.traffic.requests_per_user);
  // The last request of each user meets fewer and fewer prompts of others.
  double others = std::max(0.0, running - 1) * (1 - 0.5 / waves);
  double decoding = running, together = prompts_together(lane, running, 1);
  double steps = std::max(1.0, lane.steps());
  for (int round = 0; round < 30; ++round) {
    double step = lane.decode_step(std::max(1.0, decoding));
    // A request does not decode beside its own prompt.
    Lane::Prompt prompt = lane.prefill(decoding * (running - 1) / running, together);
    double alone = prompt.extra / together, extra = alone * lockstep_factor(lane);
    double period = std::max(cycle.period(), lane.steps() * step + prompt.seconds);
    double share = round == 0 ? 1 : std::min(1.0, cycle.decoding / period);
    share = share + (1 - share) / waves;
    double fresh = lane.steps() * step + others * share * extra;
    cycle.decoding = round == 0 ? fresh : 0.5 * (cycle.decoding + fresh);
    double mean_step = std::max(step, cycle.decoding / steps);
    double per_step = running / std::max(cycle.period(), fresh) * mean_step;
    double wait = admission_seconds(lane, running, mean_step, per_step, prompt.seconds);
    double burst = std::max(0.0, running - 1) / 2 * alone / waves;
    cycle.ttft = lane.d.engine.prompt_s + prompt.seconds + wait * (1 - 1 / waves) + burst;
    decoding = std::max(0.0, running * cycle.decoding / cycle.period());
    together = prompts_together(lane, running, gathered_prompts(lane, per_step));
  }
  cycle.tpot = lane.traffic.output_tokens > 1 ? cycle.decoding / (lane.traffic.output_tokens - 1) : 0;
  return cycle;
}

// Requests per lane that a rate of arrivals keeps running: Little's law, by bisection.
double running_at_rate(const Lane& lane, double rate) {
  if (lane.limit / steady_cycle(lane, lane.limit).period() <= rate) return lane.limit;
  double low = 0, high = lane.limit;
  for (int i = 0; i < 50; ++i) {
    double middle = (low + high) / 2;
    (middle / steady_cycle(lane, std::max(1.0, middle)).period() < rate ? low : high) = middle;
  }
  return high;
}

Estimate batch_estimate(const Lane& lane, double batch) {
  Estimate e;
  Lane::Prompt prompts = lane.prefill(0, batch);
  double step = lane.decode_step(batch);
  e.ttft_s = lane.d.engine.prompt_s + prompts.seconds;
  e.tpot_s = step / lane.d.speculation.tokens_per_step();
  double total = e.ttft_s + e.tpot_s * std::max(0.0, lane.traffic.output_tokens - 1);
  e.running = batch;
  e.tokens_per_s = batch * lane.traffic.output_tokens / total;
  e.load = batch / std::max(1.0, lane.limit);
  return e;
}

Estimate steady_estimate(const Lane& lane, double users) {
  Estimate e;
  const Traffic& t = lane.traffic;
  double limit = std::max(1.0, lane.limit);
  double running = t.arrival == Arrival::flood ? limit : std::min(users, limit);
  Cycle cycle = steady_cycle(lane, std::max(1.0, running));
  double waves = std::max(1.0, t.requests_per_user);
  double waiting = t.arrival == Arrival::closed ? cycle.period() * std::max(0.0, users / limit - 1) : 0;
  e.ttft_s = cycle.ttft + waiting * (1 - 0.5 / waves);
  e.tpot_s = cycle.tpot;
  e.running = running;
  e.tokens_per_s = running * t.output_tokens / cycle.period();
  e.load = t.arrival == Arrival::flood ? 1 : users / limit;
  return e;
}

Estimate open_estimate(const Lane& lane, double rate) {
  Estimate e;
  double running = running_at_rate(lane, rate);
  Cycle cycle = steady_cycle(lane, std::max(1.0, running));
  double full = lane.limit / steady_cycle(lane, lane.limit).period();
  e.ttft_s = cycle.ttft;
  e.tpot_s = cycle.tpot;
  e.running = running;
  e.tokens_per_s = std::min(rate, full) * lane.traffic.output_tokens;
  e.load = rate / full;
  return e;
}

}  // namespace

Result<Estimate> aggregated(const Deployment& d, const Traffic& traffic, double workers) {
  TESSERA_RETURN_IF_ERROR(check(d));
  Lane lane(d, traffic);
  TESSERA_RETURN_IF_ERROR(fits(lane));
  double lanes = real(d.layout.dp * d.layout.pp) * workers;
  // A worker with fewer users than lanes leaves some of them empty: the busy ones hold one each.
  double users = std::max(1.0, traffic.concurrency / lanes);
  Estimate e;
  if (traffic.arrival == Arrival::batch)
    e = batch_estimate(lane, users);
  else if (traffic.arrival == Arrival::open)
    e = open_estimate(lane, traffic.rate / lanes);
  else
    e = steady_estimate(lane, users);
  double busy = std::min(1.0, traffic.arrival == Arrival::closed ? traffic.concurrency / lanes : 1.0);
  e.tokens_per_s *= lanes * busy;
  e.running *= lanes * busy;
  e.gpus = real(d.layout.gpus()) * workers;
  e.tokens_per_s_gpu = e.tokens_per_s / e.gpus;
  e.tokens_per_s_user = e.tpot_s > 0 ? 1 / e.tpot_s : 0;
  e.saturated = e.load > 0.9;
  double running = e.running / (lanes * busy);
  e.decode_step = lane.model.breakdown(lane.decode_load(running));
  double prompts = e.tokens_per_s / traffic.output_tokens / lanes;
  lane.add_activity(prompts, std::min(1.0, running) * busy, e.decode_step, 1, e.activity);
  return e;
}

double Disaggregated::gpus() const {
  return real(prefill.layout.gpus()) * prefill_workers + real(decode.layout.gpus()) * decode_workers;
}

double transfer_seconds(const Deployment& prefill, double prompt_tokens) {
  double wire = std::max(1.0, prefill.device.nic_bytes_per_s * prefill.engine.network);
  return sequence_bytes(prefill, prompt_tokens) / wire;
}

Result<Estimate> disaggregated(const Disaggregated& pair, const Traffic& traffic) {
  TESSERA_RETURN_IF_ERROR(check(pair.prefill));
  TESSERA_RETURN_IF_ERROR(check(pair.decode));
  // A prefill worker takes a prompt whole: its steps have no answers to hold up.
  Deployment whole = pair.prefill;
  whole.engine.budget_tokens = std::max(whole.engine.budget_tokens, traffic.input_tokens);
  Lane front(whole, traffic), back(pair.decode, traffic);
  TESSERA_RETURN_IF_ERROR(fits(front));
  TESSERA_RETURN_IF_ERROR(fits(back));
  double front_lanes = real(pair.prefill.layout.dp * pair.prefill.layout.pp) * pair.prefill_workers;
  double back_lanes = real(pair.decode.layout.dp * pair.decode.layout.pp) * pair.decode_workers;

  Lane::Prompt prompt = front.prefill(0, 1);
  double together = std::max(1.0, whole.engine.budget_tokens / front.prompt);
  double full_rate = front_lanes * together / front.prefill(0, together).seconds;
  double transfer = transfer_seconds(pair.prefill, traffic.input_tokens);

  double users = traffic.concurrency, limit = std::max(1.0, back.limit) * back_lanes;
  double decoding = std::min(users, limit), tpot = 0, queue = 0, throughput = 0;
  double first = pair.prefill.engine.prompt_s + prompt.seconds + transfer;
  for (int round = 0; round < 200; ++round) {
    double step = back.decode_step(std::max(1.0, decoding / back_lanes));
    tpot = step / back.d.speculation.tokens_per_step();
    double answer = tpot * std::max(0.0, traffic.output_tokens - 1);
    double cycle = first + queue + answer;
    throughput = traffic.arrival == Arrival::open ? traffic.rate : users / cycle;
    throughput = std::min({throughput, full_rate, limit / answer});
    // Little: who is not decoding or being served waits for a prefill worker.
    double waits = traffic.arrival == Arrival::open ? 0 : users / throughput - first - answer;
    double load = throughput / full_rate;
    double random = std::min(load, 0.95) / (2 * (1 - std::min(load, 0.95))) * prompt.seconds / front_lanes;
    // In a closed loop nobody meets a request of their own.
    if (traffic.arrival != Arrival::open) random *= 1 - 1 / std::max(1.0, users);
    double fresh = std::max(waits > 1e-9 && load > 0.99 ? waits : 0.0, random);
    double before = queue + decoding;
    queue = 0.7 * queue + 0.3 * fresh;
    decoding = 0.7 * decoding + 0.3 * std::min(limit, throughput * answer);
    if (round > 5 && std::abs(queue + decoding - before) < 1e-5 * before) break;
  }
  double waves = std::max(1.0, traffic.requests_per_user);
  double burst = std::max(0.0, users - front_lanes) / 2 / full_rate / waves;
  Estimate e;
  e.ttft_s = first + queue + (throughput / full_rate > 0.99 ? 0 : burst);
  e.tpot_s = tpot;
  e.tokens_per_s = throughput * traffic.output_tokens;
  e.gpus = pair.gpus();
  e.tokens_per_s_gpu = e.tokens_per_s / e.gpus;
  e.tokens_per_s_user = 1 / tpot;
  e.running = decoding;
  e.load = std::max(throughput / full_rate, users / limit);
  e.saturated = e.load > 0.9;
  e.transfer_s = transfer;
  e.decode_step = back.model.breakdown(back.decode_load(std::max(1.0, decoding / back_lanes)));
  double front_share = real(pair.prefill.layout.gpus()) * pair.prefill_workers / e.gpus;
  front.add_activity(throughput / front_lanes, 0, {}, front_share, e.activity);
  back.add_activity(0, std::min(1.0, decoding / back_lanes), e.decode_step, 1 - front_share, e.activity);
  return e;
}

}  // namespace tessera::plan::serving
