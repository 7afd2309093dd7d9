#include "serve/step_times.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/clock.h"

namespace tessera::serve {
namespace {

class Letters : public data::Tokenizer {
 public:
  explicit Letters(int64_t size) {
    set_tokens(std::vector<Token>(static_cast<size_t>(size), Token{.bytes = "x"}));
  }
  std::vector<int64_t> encode(std::string_view text, const data::EncodeOptions&) const override {
    return std::vector<int64_t>(text.size(), 0);
  }
};

// Requests of one measurement: collects what the engine delivers, with the time when it came.
class Batch {
 public:
  explicit Batch(Engine& engine) : engine_(engine) {}
  Batch(const Batch&) = delete;
  ~Batch() {
    for (const auto& answer : answers_) engine_.cancel(answer->id());
  }

  Status submit(std::vector<CompletionRequest> requests) {
    TESSERA_ASSIGN_OR_RETURN(answers_, engine_.submit(std::move(requests), [this] {
      std::lock_guard lock(mutex_);
      news_ = true;
      changed_.notify_one();
    }));
    tokens_.resize(answers_.size());
    return {};
  }

  // Until every answer has `tokens` tokens, or is complete.
  Status wait_for(int64_t tokens) {
    while (std::ranges::min(tokens_) < tokens) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return news_; });
        news_ = false;
      }
      TESSERA_RETURN_IF_ERROR(collect(tokens));
    }
    return {};
  }
  // Takes what has come by now.
  Status collect(int64_t tokens) {
    for (size_t i = 0; i < answers_.size(); ++i) {
      CompletionProgress more = answers_[i]->take();
      if (more.error) return *more.error;
      tokens_[i] += std::ssize(more.tokens);
      if (more.finished) tokens_[i] = std::max(tokens_[i], tokens);
    }
    return {};
  }
  int64_t tokens() const { return std::ranges::min(tokens_); }

 private:
  Engine& engine_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool news_ = false;
  Engine::Completions answers_;
  std::vector<int64_t> tokens_;
};

CompletionRequest request_of(int64_t prompt, int64_t answer, int64_t vocab, int64_t seed) {
  CompletionRequest request{.sampling = {.temperature = 0}, .max_tokens = answer, .ignore_eos = true};
  for (int64_t i = 0; i < prompt; ++i) request.prompt.push_back((seed * 104729 + i * 31 + i * i * 7) % vocab);
  return request;
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + std::ssize(values) / 2);
  return values[values.size() / 2];
}

// Answers of all their possible length, so that they run until their batch is given up.
std::vector<CompletionRequest> long_requests(const StepTimesOptions& options, int64_t count, int64_t prompt,
                                             int64_t& seed) {
  std::vector<CompletionRequest> requests;
  for (int64_t s = 0; s < count; ++s)
    requests.push_back(request_of(prompt, options.max_length - prompt, options.vocab, ++seed));
  return requests;
}

// Answers begin one after the other, as their prompts are done; what is timed begins when all of them run.
Status time_decode(Engine& engine, const StepTimesOptions& options, int64_t& seed, DecodePoint& point) {
  Batch batch(engine);
  TESSERA_RETURN_IF_ERROR(batch.submit(long_requests(options, point.sequences, point.prompt, seed)));
  TESSERA_RETURN_IF_ERROR(batch.wait_for(2));
  std::vector<double> seconds;
  for (int64_t i = 0; i < options.decode_steps; ++i) {
    auto start = Clock::now();
    int64_t before = batch.tokens();
    TESSERA_RETURN_IF_ERROR(batch.wait_for(before + 1));
    seconds.push_back(seconds_since(start) / static_cast<double>(batch.tokens() - before));
  }
  point.seconds = median(seconds);
  point.context =
      static_cast<double>(point.prompt + batch.tokens()) - static_cast<double>(options.decode_steps) / 2;
  return {};
}

Status time_prompt(Engine& engine, const StepTimesOptions& options, int64_t& seed, PromptPoint& point) {
  std::vector<double> seconds;
  for (int run = 0; run < 3; ++run) {
    Batch batch(engine);
    auto start = Clock::now();
    TESSERA_RETURN_IF_ERROR(batch.submit({request_of(point.tokens, 1, options.vocab, ++seed)}));
    TESSERA_RETURN_IF_ERROR(batch.wait_for(1));
    seconds.push_back(seconds_since(start));
  }
  point.seconds = median(seconds);
  return {};
}

// The step with the prompt is the longest wait for a token of those that decode.
Result<double> time_arrival(Engine& engine, Batch& decoding, CompletionRequest prompt) {
  Batch arriving(engine);
  TESSERA_RETURN_IF_ERROR(decoding.wait_for(decoding.tokens() + 1));
  TESSERA_RETURN_IF_ERROR(arriving.submit({std::move(prompt)}));
  double longest = 0;
  while (arriving.tokens() < 1) {
    auto start = Clock::now();
    TESSERA_RETURN_IF_ERROR(decoding.wait_for(decoding.tokens() + 1));
    longest = std::max(longest, seconds_since(start));
    TESSERA_RETURN_IF_ERROR(arriving.collect(1));
  }
  return longest;
}

constexpr int64_t kMixedPrompt = 32;  // of those that decode
constexpr int kArrivals = 5;

Status time_mixed(Engine& engine, const StepTimesOptions& options, int64_t& seed, MixedPoint& point) {
  Batch decoding(engine);
  TESSERA_RETURN_IF_ERROR(decoding.submit(long_requests(options, point.sequences, kMixedPrompt, seed)));
  TESSERA_RETURN_IF_ERROR(decoding.wait_for(2));
  const int64_t before = decoding.tokens();
  std::vector<double> seconds;
  for (int run = 0; run < kArrivals; ++run) {
    auto prompt = request_of(point.tokens, 1, options.vocab, ++seed);
    TESSERA_ASSIGN_OR_RETURN(double longest, time_arrival(engine, decoding, std::move(prompt)));
    seconds.push_back(longest);
  }
  point.seconds = median(seconds);
  point.context = kMixedPrompt + static_cast<double>(before + decoding.tokens()) / 2;
  return {};
}

bool fits(const StepTimesOptions& options, int64_t sequences, int64_t prompt) {
  // Early answers of a large batch grow while the last prompts are computed.
  const int64_t length = prompt + 4 * options.decode_steps;
  return sequences <= options.max_running && length <= options.max_length &&
         sequences * (length + 64) <= options.kv_tokens;
}

}  // namespace

data::TokenizerPtr letters(int64_t vocab) {
  return std::make_shared<Letters>(vocab);
}

Result<StepTimes> time_steps(Engine& engine, const StepTimesOptions& options) {
  StepTimes times;
  for (auto [sequences, prompt] : std::initializer_list<std::pair<int64_t, int64_t>>{
           {1, 32}, {2, 32}, {4, 32}, {8, 32}, {16, 32}, {32, 32}, {64, 32}, {1, 1024}, {4, 512}, {16, 256}})
    if (fits(options, sequences, prompt)) times.decode.push_back({.sequences = sequences, .prompt = prompt});
  for (int64_t tokens : {4, 16, 64, 128, 256, 512, 1024, 2048})
    if (fits(options, 1, tokens)) times.prompts.push_back({.tokens = tokens});
  for (auto [sequences, tokens] :
       std::initializer_list<std::pair<int64_t, int64_t>>{{1, 256}, {4, 64}, {4, 256}, {16, 64}, {16, 256}})
    if (fits(options, sequences + 1, tokens) && sequences + tokens <= options.max_batch_tokens)
      times.mixed.push_back({.sequences = sequences, .tokens = tokens});
  if (times.decode.empty() || times.prompts.empty())
    return invalid("the KV cache of {} tokens is too small to time anything", options.kv_tokens);
  int64_t seed = 0;
  auto warm = times.prompts.back();  // first touches of memory
  TESSERA_RETURN_IF_ERROR(time_prompt(engine, options, seed, warm));
  const auto count = static_cast<double>(times.decode.size() + times.prompts.size() + times.mixed.size());
  double done = 0;
  for (DecodePoint& point : times.decode) {
    TESSERA_RETURN_IF_ERROR(time_decode(engine, options, seed, point));
    if (options.progress)
      options.progress(fmt::format("decode of {} at {} tokens", point.sequences, point.prompt), ++done / count);
  }
  for (PromptPoint& point : times.prompts) {
    TESSERA_RETURN_IF_ERROR(time_prompt(engine, options, seed, point));
    if (options.progress) options.progress(fmt::format("prompt of {} tokens", point.tokens), ++done / count);
  }
  for (MixedPoint& point : times.mixed) {
    TESSERA_RETURN_IF_ERROR(time_mixed(engine, options, seed, point));
    if (options.progress)
      options.progress(fmt::format("prompt of {} tokens beside {} answers", point.tokens, point.sequences),
                       ++done / count);
  }
  return times;
}

}  // namespace tessera::serve
