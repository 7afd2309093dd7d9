// Tokens per second of the server's engine, without HTTP: decoding with several sequences, and one long prompt.
// bench/serve/compare.py runs it beside llama.cpp and transformers on the same weights.
//
//   cmake --build --preset release --target bench_serve
//   build/release/bench/serve --model DIR [--batch 1 --batch 8] [--prefill 2048] [--json F]
//
// Decoding is timed from the moment when every sequence has its first token; a figure is the best of --repeats.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/clock.h"
#include "core/file.h"
#include "kernels/kernels.h"
#include "kernels/threads.h"
#include "serve/engine.h"
#include "serve/setup.h"
#include "serve/step_times.h"

namespace {

using namespace tessera;
using nlohmann::json;

struct Flags {
  std::string model, dtype = "bf16", json_file;
  std::vector<int64_t> batches = {1, 8, 16};
  int64_t prompt = 32, tokens = 64, prefill = 2048, threads = 0, repeats = 3;
  double temperature = 0;
  int64_t logprobs = -1;
};

// GB/s of adding up 512 MB with all threads.
double read_bandwidth() {
  static std::vector<uint64_t> memory(size_t{64} << 20, 1);
  volatile uint64_t kept = 0;
  double best = 0;
  for (int run = 0; run < 5; ++run) {
    auto start = Clock::now();
    kernels::parallel_ranges(std::ssize(memory), 1 << 16, [&](int64_t begin, int64_t end) {
      uint64_t sums[8] = {};
      for (int64_t i = begin; i < end; i += 8)
        for (int64_t j = 0; j < 8; ++j) sums[j] += memory[static_cast<size_t>(i + j)];
      for (uint64_t sum : sums) kept = kept + sum;
    });
    best = std::max(best, static_cast<double>(memory.size() * 8) / seconds_since(start) * 1e-9);
  }
  return best;
}

struct Timing {
  double first_s = 0, decode_s = 0;  // until all have a token; from then to the end
  int64_t decoded = 0;
};

Result<Timing> run(serve::Engine& engine, const Flags& flags, int64_t batch, int64_t prompt, int64_t tokens,
                   int64_t vocab, int64_t seed) {
  std::vector<serve::CompletionRequest> requests;
  for (int64_t b = 0; b < batch; ++b) {
    serve::CompletionRequest request{
        .sampling = {.temperature = flags.temperature, .seed = static_cast<uint64_t>(seed + b)},
        .max_tokens = tokens,
        .ignore_eos = true};
    if (flags.logprobs >= 0) request.logprobs = flags.logprobs;
    for (int64_t i = 0; i < prompt; ++i)
      request.prompt.push_back((seed * 7919 + b * 104729 + i * 31 + i * i * 7) % vocab);
    requests.push_back(std::move(request));
  }
  std::mutex mutex;
  std::condition_variable news;
  bool ready = false;
  Timing timing;
  auto start = Clock::now();
  TESSERA_ASSIGN_OR_RETURN(auto answers, engine.submit(std::move(requests), [&] {
    std::lock_guard lock(mutex);
    ready = true;
    news.notify_one();
  }));
  std::vector<int64_t> taken(answers.size());
  size_t finished = 0;
  while (finished < answers.size()) {
    {
      std::unique_lock lock(mutex);
      news.wait(lock, [&] { return ready; });
      ready = false;
    }
    for (size_t i = 0; i < answers.size(); ++i) {
      auto more = answers[i]->take();
      if (more.error) return *more.error;
      if (timing.first_s > 0) timing.decoded += std::ssize(more.tokens);
      taken[i] += std::ssize(more.tokens);
      finished += more.finished;
    }
    if (timing.first_s == 0 && std::ranges::min(taken) > 0) timing.first_s = seconds_since(start);
  }
  timing.decode_s = seconds_since(start) - timing.first_s;
  return timing;
}

Result<json> measure(const Flags& flags) {
  kernels::set_kernel_threads(flags.threads > 0 ? flags.threads : std::thread::hardware_concurrency());
  auto team = serve::make_single_team();
  serve::ServeOptions options{.model = flags.model, .dtype = flags.dtype, .kv_tokens = 1};
  auto start = Clock::now();
  TESSERA_ASSIGN_OR_RETURN(auto model, serve::load_model(options, 0, false));
  json result = {{"model", flags.model}, {"load_s", seconds_since(start)}};
  const int64_t most = std::max<int64_t>(*std::ranges::max_element(flags.batches), 1);
  options.kv_tokens = most * (flags.prompt + flags.tokens + 64) + flags.prefill + 64;
  options.max_batch_tokens = 512;
  auto tokenizer = serve::letters(model.spec().vocab);
  TESSERA_ASSIGN_OR_RETURN(auto engine, serve::Engine::start(model, *team, tokenizer,
                                                             {.scheduling = serve::scheduling_of(options)}));
  const int64_t vocab = model.spec().vocab;
  int64_t seed = 0;
  for (int64_t batch : flags.batches) {
    double best = 0, bandwidth = 0, gap_ms = HUGE_VAL;
    for (int64_t i = 0; i < flags.repeats; ++i) {
      bandwidth = std::max(bandwidth, read_bandwidth());
      const auto before = engine->metrics().snapshot();
      TESSERA_ASSIGN_OR_RETURN(Timing timing,
                               run(*engine, flags, batch, flags.prompt, flags.tokens, vocab, ++seed));
      const auto after = engine->metrics().snapshot();
      best = std::max(best, static_cast<double>(timing.decoded) / timing.decode_s);
      gap_ms = std::min(gap_ms,
                        1e3 * (after.gaps_s - before.gaps_s) / static_cast<double>(after.steps - before.steps));
    }
    fmt::print("decode, {:2} sequences: {:7.1f} tokens/s  (reads {:.1f} GB/s, {:.3f} ms between passes)\n",
               batch, best, bandwidth, gap_ms);
    result["decode"][std::to_string(batch)] = {
        {"tokens_per_s", best}, {"read_gb_per_s", bandwidth}, {"gap_ms", gap_ms}};
  }
  if (flags.prefill > 0) {
    double best = 0;
    for (int64_t i = 0; i < flags.repeats; ++i) {
      TESSERA_ASSIGN_OR_RETURN(Timing timing, run(*engine, flags, 1, flags.prefill, 1, vocab, ++seed));
      best = std::max(best, static_cast<double>(flags.prefill) / timing.first_s);
    }
    fmt::print("prefill of {}: {:7.1f} tokens/s\n", flags.prefill, best);
    result["prefill"] = {{"tokens", flags.prefill}, {"tokens_per_s", best}};
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tokens per second of the server's engine");
  Flags flags;
  app.add_option("--model", flags.model, "Model directory, packed or Hugging Face")->required();
  app.add_option("--dtype", flags.dtype, "Activations and KV")->capture_default_str();
  app.add_option("--batch", flags.batches, "Sequences at once; several");
  app.add_option("--prompt", flags.prompt, "Tokens of each prompt")->capture_default_str();
  app.add_option("--tokens", flags.tokens, "Tokens to generate")->capture_default_str();
  app.add_option("--prefill", flags.prefill, "Tokens of the long prompt; 0: none")->capture_default_str();
  app.add_option("--threads", flags.threads, "0: all cores")->capture_default_str();
  app.add_option("--temperature", flags.temperature, "Of sampling; 0: greedy")->capture_default_str();
  app.add_option("--logprobs", flags.logprobs, "Asked for with each token; -1: none")->capture_default_str();
  app.add_option("--repeats", flags.repeats)->capture_default_str();
  app.add_option("--json", flags.json_file, "Write the figures here");
  CLI11_PARSE(app, argc, argv);
  auto result = measure(flags);
  if (!result) {
    fmt::print(stderr, "error: {}\n", result.error().message);
    return 1;
  }
  if (flags.json_file.empty()) return 0;
  return write_file_atomically(flags.json_file, result->dump(2) + "\n").ok() ? 0 : 1;
}
