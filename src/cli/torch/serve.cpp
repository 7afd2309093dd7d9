// tessera serve: a model behind OpenAI's HTTP interface, over one process or the ranks of a tensor-parallel
// group.
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/torch/front_options.h"
#include "cli/torch/prefill_processes.h"
#include "cli/torch/rank_meeting.h"
#include "cli/torch/rank_team.h"
#include "cli/torch/serve_options.h"
#include "core/log.h"
#include "serve/openai_api.h"
#include "serve/prefill_worker.h"

namespace tessera::cli {

namespace {

struct ServeCommand {
  ServeFlags serve;
  FrontFlags front;
  PrefillFlags prefill;
  std::string name, chat_template;
  std::vector<std::string> adapters;  // NAME=DIR
  int64_t max_length = 0, max_guesses = 0;
  // A draft model guesses though nobody said how far.
  int64_t guesses() const { return max_guesses == 0 && !serve.draft.empty() ? 4 : max_guesses; }
  double worker_silence_s = 0.8, ttft_objective_s = 0, queue_timeout_s = 0, timeout_s = 0;
  bool quiet = false;
};

std::string model_name(const ServeCommand& flags) {
  if (!flags.name.empty()) return flags.name;
  auto path = std::filesystem::weakly_canonical(flags.serve.model);
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

void print_line(const std::string& line) {
  std::fprintf(stdout, "%s\n", line.c_str());
  std::fflush(stdout);
}

void print_request(const serve::RequestSummary& request) {
  print_line(fmt::format("request {}: {} prompt tokens, {} generated, {:.3f} s, {:.1f} tokens/s, {}",
                         request.id, request.prompt_tokens, request.generated_tokens, request.total_s,
                         static_cast<double>(request.generated_tokens) / std::max(request.total_s, 1e-9),
                         request.reason));
}

// Other ranks: the model's other parts, or prefill workers with a whole one, until rank 0 says stop. A group
// that ends for another reason is followed by the next one.
Status run_follower(const ServeCommand& flags, const RankPlace& place) {
  const bool prefills = place.role == kPrefillRole;
  set_log_name(prefills ? "prefill worker" : fmt::format("rank {}", place.rank));
  TESSERA_ASSIGN_OR_RETURN(auto member, RankMember::connect(place));
  ServeFlags own = flags.serve;
  own.kv_tokens = place.kv_tokens;
  TESSERA_ASSIGN_OR_RETURN(auto options, own.options());
  if (prefills) options.kv_host_tokens = options.kv_disk_tokens = 0;
  const auto scheduling = serve::scheduling_of(options);
  own.apply_threads(options.layout.processes() + flags.prefill.workers);
  TESSERA_ASSIGN_OR_RETURN(auto model, serve::load_model(options, prefills ? 0 : place.rank, false));
  TESSERA_ASSIGN_OR_RETURN(auto runner, serve::StepRunner::make(model, scheduling, options.kv_disk_folder));
  member->loaded();
  while (true) {
    TESSERA_ASSIGN_OR_RETURN(auto groups, member->next_groups());
    if (!groups) return {};
    runner.connect(groups->view());
    Status followed = prefills ? serve::follow_decoder(runner, scheduling, *groups->view().world)
                               : serve::follow_engine(runner, groups->view());
    if (followed.ok()) return {};
    log(LogLevel::info, "waits for the others after: {}", followed.error().message);
    groups->abort(followed.error());
  }
}

// NAME=DIR each.
Status add_adapters(const ServeCommand& flags, serve::ServedModel& model) {
  if (!flags.adapters.empty() && flags.prefill.workers > 0)
    return invalid("--adapter beside --prefill-workers: adapters are served on one process");
  for (const std::string& adapter : flags.adapters) {
    const size_t end = adapter.find('=');
    if (end == std::string::npos || end == 0 || end + 1 == adapter.size())
      return invalid("--adapter '{}': expected NAME=DIRECTORY", adapter);
    const std::string name = adapter.substr(0, end);
    for (const auto& other : model.adapters())
      if (other.name == name) return invalid("--adapter '{}': the name '{}' is given twice", adapter, name);
    if (name == model_name(flags))
      return invalid("--adapter '{}': '{}' is the model's own name", adapter, name);
    TESSERA_RETURN_IF_ERROR(model.add_adapter(name, adapter.substr(end + 1)));
  }
  return {};
}

// A template that cannot be run takes away chat only; completions are served all the same.
serve::ServedName served_name(const ServeCommand& flags, const data::TokenizerPtr& tokenizer,
                              const serve::ServedModel& model, const serve::Engine& engine) {
  serve::ServedName out{.name = model_name(flags),
                        .max_length = engine.max_length(),
                        .end_tokens = engine.end_tokens(),
                        .vocabulary = std::make_shared<const serve::Vocabulary>(tokenizer)};
  for (const auto& adapter : model.adapters()) out.adapters.push_back(adapter.name);
  auto chat = chat::load_model_chat(flags.serve.model, flags.chat_template);
  if (!chat) {
    out.no_chat = chat.error().message;
    log(LogLevel::warn, "no chat completions: {}", out.no_chat);
    return out;
  }
  if (!*chat) return out;
  chat::ModelChat found = std::move(**chat);
  const chat::Value* eos = found.special_tokens.find("eos_token");
  auto id = eos ? tokenizer->token_to_id(*eos->text()) : std::nullopt;
  if (id) found.end_tokens.push_back(*id);
  std::erase_if(found.end_tokens, [&](int64_t token) { return token < 0 || token >= tokenizer->vocab_size(); });
  out.set_chat(std::move(found), tokenizer);
  return out;
}

Status serve_requests(const ServeCommand& flags, const serve::ServeOptions& options, serve::Team& team,
                      PrefillProcesses& prefill, HttpServer& server) {
  TESSERA_ASSIGN_OR_RETURN(auto tokenizer, serve::load_served_tokenizer(options.model, options.tokenizer));
  TESSERA_ASSIGN_OR_RETURN(auto model, serve::load_model(options, 0, true));
  TESSERA_RETURN_IF_ERROR(add_adapters(flags, model));
  TESSERA_RETURN_IF_ERROR(team.meet());
  TESSERA_ASSIGN_OR_RETURN(auto prefill_pool, prefill.meet());
  std::optional<Error> failure;
  serve::EngineOptions engine_options{.scheduling = serve::scheduling_of(options),
                                      .kv_folder = options.kv_disk_folder,
                                      .max_length = flags.max_length,
                                      .max_guesses = flags.guesses(),
                                      .ttft_objective_s = flags.ttft_objective_s,
                                      .queue_timeout_s = flags.queue_timeout_s,
                                      .timeout_s = flags.timeout_s,
                                      .prefill = prefill_pool.get()};
  TESSERA_ASSIGN_OR_RETURN(engine_options.draft, flags.serve.load_draft(options, model.spec()));
  if (!flags.quiet) engine_options.on_finished = print_request;
  engine_options.on_failure = [&](const Error& error) {
    server.post([&failure, &server, error] {
      failure = error;
      server.drain();
    });
  };
  TESSERA_ASSIGN_OR_RETURN(auto engine, serve::Engine::start(model, team, tokenizer, engine_options));
  serve::OpenAiApi api(*engine, server, tokenizer, served_name(flags, tokenizer, model, *engine));
  print_line(fmt::format("serving {} on {} (layout {}, {}, context {} tokens, KV cache {} tokens)",
                         model_name(flags), flags.front.url(server), to_string(options.layout), options.dtype,
                         engine->max_length(), engine_options.scheduling.capacity_tokens()));
  TESSERA_ASSIGN_OR_RETURN(auto handler,
                           flags.front.guarded([&api](auto exchange) { api.handle(std::move(exchange)); }));
  bool drained = server.run(std::move(handler));
  if (failure) return failure->within("the engine failed");
  if (!drained) return make_error(ErrorCode::aborted, "stopped before all requests had finished");
  print_line("drained: all requests have finished");
  return {};
}

Status run_server(const ServeCommand& flags) {
  TESSERA_ASSIGN_OR_RETURN(auto options, flags.serve.options());
  TESSERA_RETURN_IF_ERROR(flags.prefill.check(options.layout));
  if (flags.serve.kv_tokens == 0) options.kv_tokens /= 1 + flags.prefill.workers;
  // Bound before the model is loaded, so that a port in use is known at once.
  TESSERA_ASSIGN_OR_RETURN(auto server, flags.front.listen());
  flags.serve.apply_threads(options.layout.processes() + flags.prefill.workers);
  TESSERA_ASSIGN_OR_RETURN(auto team, RankTeam::start({.layout = options.layout,
                                                       .kv_tokens = options.kv_tokens,
                                                       .silence_s = flags.worker_silence_s}));
  TESSERA_ASSIGN_OR_RETURN(auto prefill,
                           PrefillProcesses::start(flags.prefill, options, flags.worker_silence_s));
  return serve_requests(flags, options, *team, *prefill, *server);
}

}  // namespace

void add_serve(CLI::App& app) {
  auto flags = std::make_shared<ServeCommand>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model over OpenAI's HTTP interface");
  flags->serve.add_to(*command);
  command
      ->add_option("--layout", flags->serve.layout,
                   "Over processes: tp=2 cuts layers, pp=2 makes stages, dp=2 replicas, ep=2 spreads experts")
      ->capture_default_str();
  flags->prefill.add_to(*command);
  flags->front.add_to(*command);
  command->add_option("--served-model-name", flags->name,
                      "What clients call it; the directory's name if empty");
  command
      ->add_option("--chat-template", flags->chat_template,
                   "Jinja file that writes conversations out; the model's own if empty")
      ->check(CLI::ExistingFile);
  command->add_option("--max-length", flags->max_length, "Tokens of a prompt and its answer; 0: the model's")
      ->capture_default_str();
  command->add_option("--max-running", flags->serve.max_running, "Requests that run at once")
      ->capture_default_str();
  command->add_option("--max-waiting", flags->serve.max_waiting, "Requests that wait; more are refused")
      ->capture_default_str();
  command
      ->add_option("--kv-host-tokens", flags->serve.kv_host_tokens,
                   "Tokens whose keys and values stay in host memory when the cache needs their room; 0: none")
      ->check(non_negative_number())
      ->capture_default_str();
  command->add_option("--kv-disk-tokens", flags->serve.kv_disk_tokens, "The same on disk, behind host memory")
      ->check(non_negative_number())
      ->capture_default_str();
  command
      ->add_option("--kv-disk-dir", flags->serve.kv_disk_folder,
                   "Folder of the disk tier; the system's for temporary files if empty")
      ->check(CLI::ExistingDirectory);
  command
      ->add_option(
          "--ttft-objective", flags->ttft_objective_s,
          "Refuse a request at once when its first token would come after so many seconds; 0: queue it")
      ->check(non_negative_number())
      ->capture_default_str();
  command
      ->add_option("--queue-timeout", flags->queue_timeout_s,
                   "Seconds that a request may wait to start; 0: any")
      ->check(non_negative_number())
      ->capture_default_str();
  command->add_option("--request-timeout", flags->timeout_s, "Seconds until a request must have ended; 0: any")
      ->check(non_negative_number())
      ->capture_default_str();
  command
      ->add_option("--guess", flags->max_guesses,
                   "Guess up to so many tokens ahead from repetitions in the text; answers stay the same")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  command
      ->add_option(
          "--adapter", flags->adapters,
          "NAME=DIR of a LoRA adapter in PEFT's form, which requests name as their model; may be given "
          "several times")
      ->allow_extra_args(false);
  command->add_option("--draft", flags->serve.draft,
                      "Smaller model of the same vocabulary that guesses instead, 4 tokens unless --guess says "
                      "otherwise; answers stay the same");
  command
      ->add_option("--worker-silence", flags->worker_silence_s,
                   "Seconds without a sign of life after which a worker process is replaced")
      ->check(positive_number())
      ->capture_default_str();
  command->add_flag("--quiet", flags->quiet, "No line for each request");
  command->footer(
      "Examples: tessera serve --model runs/quickstart/model --layout tp=2 --port 8000\n"
      "         tessera serve --model DIR --prefill-workers 1 --prefill-from 256\n"
      "         tessera serve --model DIR --host 0.0.0.0 --api-keys keys.toml --tls-cert cert.pem --tls-key "
      "key.pem\n"
      "         curl http://127.0.0.1:8000/v1/completions -d '{\"model\":\"model\",\"prompt\":\"Once\"}'");
  command->callback([flags] {
    auto place = rank_place();
    Status status = place ? run_follower(*flags, *place) : run_server(*flags);
    if (!status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
