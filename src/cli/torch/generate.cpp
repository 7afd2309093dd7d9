// tessera generate: one answer on the terminal, from the same engine that serves.
#include <cstdio>
#include <future>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/torch/serve_options.h"
#include "core/file.h"
#include "serve/engine.h"

namespace tessera::cli {

namespace {

using nlohmann::json;

struct GenerateFlags {
  ServeFlags serve;
  std::string prompt, json_file;
  std::vector<int64_t> tokens;
  std::vector<std::string> stop;
  int64_t max_tokens = 128, top_k = 0;
  double temperature = 0, top_p = 1;
  uint64_t seed = 0;
  bool logits = false, ignore_eos = false;
};

// Logits [T, vocab] of all positions of one sequence.
Result<at::Tensor> prompt_logits(const serve::ServedModel& model, const std::vector<int64_t>& tokens) {
  auto count = std::ssize(tokens);
  TESSERA_ASSIGN_OR_RETURN(auto cache, model.make_cache(1, (count + 15) / 16 * 16));
  std::vector<int64_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  serve::StepBatch batch{.tokens = tokens,
                         .positions = positions,
                         .sequence = std::vector<int64_t>(tokens.size(), 0),
                         .slot = positions,
                         .block_table = {0},
                         .max_blocks = 1,
                         .wanted = positions};
  return model.forward(batch, cache);
}

json rows_of(const at::Tensor& logits) {
  json rows = json::array();
  auto values = logits.accessor<float, 2>();
  for (int64_t t = 0; t < values.size(0); ++t) {
    json& row = rows.emplace_back(json::array());
    for (int64_t v = 0; v < values.size(1); ++v) row.push_back(values[t][v]);
  }
  return rows;
}

struct Generated {
  std::string text;
  std::vector<int64_t> tokens;
  serve::FinishReason reason = serve::FinishReason::length;
  double seconds = 0;
};

// Runs one request; `show` gets text as it comes.
Result<Generated> generate(serve::Engine& engine, serve::CompletionRequest request,
                           const std::function<void(const std::string&)>& show) {
  std::mutex mutex;
  std::condition_variable news;
  bool ready = false;
  auto start = Clock::now();
  auto choices = engine.submit({std::move(request)}, [&] {
    std::lock_guard lock(mutex);
    ready = true;
    news.notify_one();
  });
  if (!choices) return choices.error();
  Generated out;
  while (true) {
    {
      std::unique_lock lock(mutex);
      news.wait(lock, [&] { return ready; });
      ready = false;
    }
    auto progress = choices->front()->take();
    if (progress.error) return *progress.error;
    show(progress.text);
    out.text += progress.text;
    out.tokens.insert(out.tokens.end(), progress.tokens.begin(), progress.tokens.end());
    if (!progress.finished) continue;
    out.reason = progress.reason.value_or(serve::FinishReason::length);
    out.seconds = seconds_since(start);
    return out;
  }
}

serve::CompletionRequest make_request(const GenerateFlags& flags, const std::vector<int64_t>& prompt,
                                      int64_t max_length) {
  auto room = std::max<int64_t>(1, max_length - std::ssize(prompt));
  return {.prompt = prompt,
          .sampling = {.temperature = flags.temperature,
                       .top_p = flags.top_p,
                       .top_k = flags.top_k,
                       .seed = flags.seed},
          .max_tokens = std::min(flags.max_tokens, room),
          .stop = flags.stop,
          .ignore_eos = flags.ignore_eos};
}

Status write_json(const std::string& file, const json& result) {
  std::string text = result.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  if (file != "-") return write_file_atomically(file, text);
  std::fputs(text.c_str(), stdout);
  return {};
}

Status run(const GenerateFlags& flags) {
  for (const std::string& stop : flags.stop)
    if (stop.empty()) return invalid("--stop must not be empty");
  TESSERA_ASSIGN_OR_RETURN(auto options, flags.serve.options());
  flags.serve.apply_threads(1);
  auto team = serve::make_single_team();
  TESSERA_ASSIGN_OR_RETURN(auto tokenizer, serve::load_served_tokenizer(options.model, options.tokenizer));
  TESSERA_ASSIGN_OR_RETURN(auto model, serve::load_model(options, 0, false));
  auto prompt = flags.tokens;
  if (prompt.empty()) prompt = tokenizer->encode(flags.prompt, {.add_special_tokens = true});
  json result = {{"prompt_tokens", prompt}};
  if (flags.logits) {
    TESSERA_ASSIGN_OR_RETURN(auto logits, prompt_logits(model, prompt));
    result["logits"] = rows_of(logits);
  }
  TESSERA_ASSIGN_OR_RETURN(auto engine, serve::Engine::start(model, *team, tokenizer,
                                                             {.scheduling = serve::scheduling_of(options)}));
  bool quiet = flags.json_file == "-";
  auto show = [quiet](const std::string& text) {
    std::fputs(text.c_str(), quiet ? stderr : stdout);
    std::fflush(quiet ? stderr : stdout);
  };
  show(tokenizer->decode(prompt));
  auto request = make_request(flags, prompt, engine->max_length());
  TESSERA_ASSIGN_OR_RETURN(auto generated, generate(*engine, std::move(request), show));
  show("\n");
  double rate = static_cast<double>(generated.tokens.size()) / generated.seconds;
  std::fprintf(stderr, "%zu tokens in %.2f s, %.1f tokens/s\n", generated.tokens.size(), generated.seconds,
               rate);
  result.update({{"text", generated.text},
                 {"tokens", generated.tokens},
                 {"finish_reason", to_string(generated.reason)},
                 {"seconds", generated.seconds},
                 {"tokens_per_s", rate}});
  return flags.json_file.empty() ? Status() : write_json(flags.json_file, result);
}

}  // namespace

void add_generate(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt with a model");
  flags->serve.add_to(*command);
  auto* prompt = command->add_option("--prompt", flags->prompt, "Text to continue");
  auto* tokens = command->add_option("--tokens", flags->tokens, "Token ids instead: 1,403,407")->delimiter(',');
  prompt->excludes(tokens);
  command->add_option("--max-tokens", flags->max_tokens, "Length of the answer")
      ->check(positive_number())
      ->capture_default_str();
  command->add_option("--temperature", flags->temperature, "0: always the likeliest token")
      ->check(non_negative_number())
      ->capture_default_str();
  command->add_option("--top-p", flags->top_p, "Keep tokens up to this probability")
      ->check(CLI::Range(1e-9, 1.0))
      ->capture_default_str();
  command->add_option("--top-k", flags->top_k, "Keep so many tokens; 0: all")->capture_default_str();
  command->add_option("--seed", flags->seed, "Of the random draws")->capture_default_str();
  command->add_option("--stop", flags->stop, "End in front of this text; may be repeated");
  command->add_flag("--ignore-eos", flags->ignore_eos, "Go on after the end token");
  command->add_flag("--logits", flags->logits, "Add the prompt's logits [tokens, vocabulary] to the JSON");
  command->add_option("--json", flags->json_file, "Write the result as JSON; - for standard output");
  command->footer("Example: tessera generate --model DIR --prompt 'Once upon a time' --max-tokens 64");
  command->callback([flags] {
    Status status = run(*flags);
    if (!status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
