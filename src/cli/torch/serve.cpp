// tessera serve: a model behind OpenAI's HTTP interface, over one process or the ranks of a tensor-parallel
// group.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/torch/front_options.h"
#include "cli/torch/model_host.h"
#include "cli/torch/rank_meeting.h"
#include "cli/torch/rank_team.h"
#include "cli/torch/serve_options.h"
#include "core/log.h"
#include "serve/front.h"
#include "serve/prefill_worker.h"

namespace tessera::cli {

namespace {

struct ServeCommand {
  ServeFlags serve;
  FrontFlags front;
  PrefillFlags prefill;
  std::vector<std::string> models, adapters;  // [NAME=]PATH; NAME=DIR
  std::string name, chat_template, log_format = "text";
  int64_t max_length = 0, max_guesses = 0;
  // A draft model guesses though nobody said how far.
  int64_t guesses() const { return max_guesses == 0 && !serve.draft.empty() ? 4 : max_guesses; }
  double worker_silence_s = 0.8, ttft_objective_s = 0, queue_timeout_s = 0, timeout_s = 0;
  double stuck_s = 300, unload_timeout_s = 60;
  bool quiet = false;
};

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

nlohmann::json event(const std::string& message) {
  double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return {{"time", now}, {"level", "info"}, {"message", message}};
}

void print_json(const nlohmann::json& line) {
  print_line(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_request_json(const std::string& model, const serve::RequestSummary& request) {
  nlohmann::json line = event("request");
  line.update({{"model", model},
               {"request_id", request.request_id},
               {"tenant", request.tenant},
               {"prompt_tokens", request.prompt_tokens},
               {"generated_tokens", request.generated_tokens},
               {"finish_reason", request.reason},
               {"queue_s", request.queue_s},
               {"prefill_s", request.prefill_s},
               {"decode_s", request.decode_s},
               {"total_s", request.total_s}});
  print_json(line);
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

class ServerProgram {
 public:
  ServerProgram(const ServeCommand& flags, HttpServer& server)
      : flags_(flags), server_(server), models_(server, flags.unload_timeout_s) {}

  Status run() {
    TESSERA_RETURN_IF_ERROR(add_models());
    serve::Front front(models_, server_, {.stuck_s = flags_.stuck_s, .version = TESSERA_VERSION});
    TESSERA_ASSIGN_OR_RETURN(auto keys, flags_.front.load_keys());
    auto handler = FrontFlags::guarded([&front](auto exchange) { front.handle(std::move(exchange)); }, keys);
    TESSERA_ASSIGN_OR_RETURN(auto grpc, flags_.front.start_grpc(front.backend(), server_, keys));
    if (grpc) say(fmt::format("KServe over gRPC on {}:{}", flags_.front.http.host, grpc->port()));
    server_.post([this] {
      for (const auto& entry : models_.entries())
        models_.load(entry.name, [this, name = entry.name](const Status& status) { on_loaded(name, status); });
    });
    bool drained = server_.run(std::move(handler));
    if (failure_) return *failure_;
    if (!drained) return make_error(ErrorCode::aborted, "stopped before all requests had finished");
    say("drained: all requests have finished");
    return {};
  }

 private:
  bool as_json() const { return flags_.log_format == "json"; }
  void say(const std::string& message) const { as_json() ? print_json(event(message)) : print_line(message); }

  Status add_models() {
    TESSERA_ASSIGN_OR_RETURN(paths_, parse_model_paths(flags_.models, flags_.name));
    for (const ModelPath& path : paths_) {
      HostOptions options{.serve = flags_.serve,
                          .name = path.name,
                          .chat_template = flags_.chat_template,
                          .prefill = flags_.prefill,
                          .adapters = flags_.adapters,
                          .worker_silence_s = flags_.worker_silence_s};
      options.serve.model = path.path;
      TESSERA_ASSIGN_OR_RETURN(options.sizes, options.serve.options());
      TESSERA_RETURN_IF_ERROR(flags_.prefill.check(options.sizes.layout));
      int64_t processes = options.sizes.layout.processes() + flags_.prefill.workers;
      if (paths_.size() > 1 && processes > 1)
        return invalid(
            "several models in one server run in one process each, but --layout {} and {} prefill workers make "
            "{} of the first; start a server for each",
            to_string(options.sizes.layout), flags_.prefill.workers, processes);
      if (paths_.size() > 1 && !(flags_.adapters.empty() && flags_.serve.draft.empty()))
        return invalid("--adapter and --draft are of one model; start a server for it alone");
      // What a model may take of free memory is shared by all, and with its prefill workers.
      if (flags_.serve.kv_tokens == 0)
        options.sizes.kv_tokens =
            std::max(options.sizes.kv_tokens / (std::ssize(paths_) + flags_.prefill.workers),
                     options.sizes.block_tokens);
      options.engine = engine_options(path.name);
      flags_.serve.apply_threads(processes);
      models_.add(path.name, [options] { return host_model(options); });
    }
    return {};
  }

  serve::EngineOptions engine_options(const std::string& name) {
    serve::EngineOptions options{.max_length = flags_.max_length,
                                 .max_guesses = flags_.guesses(),
                                 .ttft_objective_s = flags_.ttft_objective_s,
                                 .queue_timeout_s = flags_.queue_timeout_s,
                                 .timeout_s = flags_.timeout_s};
    if (!flags_.quiet) options.on_finished = print_request;
    if (!flags_.quiet && as_json())
      options.on_finished = [name](const auto& request) { print_request_json(name, request); };
    options.on_failure = [this, name](const Error& error) {
      server_.post([this, name, error] { on_failure(name, error.within("the engine failed")); });
    };
    return options;
  }

  void on_loaded(const std::string& name, const Status& status) {
    if (!status.ok()) return on_failure(name, status.error());
    auto model = models_.find(name);
    if (!model) return;
    say(fmt::format("serving {} on {} ({})", name, flags_.front.url(server_), (*model)->description));
  }

  // One of several models may fail and the others go on; a server without any has nothing to do.
  void on_failure(const std::string& name, const Error& error) {
    models_.fail(name, error);
    if (paths_.size() > 1) return log(LogLevel::error, "{}: {}", name, error.message);
    if (!failure_) failure_ = error;
    server_.drain();
  }

  const ServeCommand& flags_;
  HttpServer& server_;
  std::vector<ModelPath> paths_;
  serve::ModelDirectory models_;
  std::optional<Error> failure_;
};

Status run_server(const ServeCommand& flags) {
  if (flags.log_format == "json") setenv("TESSERA_LOG_FORMAT", "json", 1);
  // Bound before a model is loaded, so that a port in use is known at once, and probes are answered meanwhile.
  TESSERA_ASSIGN_OR_RETURN(auto server, flags.front.listen());
  return ServerProgram(flags, *server).run();
}

}  // namespace

void add_serve(CLI::App& app) {
  auto flags = std::make_shared<ServeCommand>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model over OpenAI's HTTP interface");
  flags->serve.add_to(*command);
  command->remove_option(command->get_option("--model"));
  command
      ->add_option(
          "--model", flags->models,
          "[NAME=]PATH of a Hugging Face directory (config.json, safetensors, tokenizer) or GGUF file; given "
          "several times, each is a model of this server")
      ->required()
      ->allow_extra_args(false);
  command
      ->add_option("--layout", flags->serve.layout,
                   "Over processes: tp=2 cuts layers, pp=2 makes stages, dp=2 replicas, ep=2 spreads experts")
      ->capture_default_str();
  flags->prefill.add_to(*command);
  flags->front.add_to(*command);
  flags->front.add_grpc_to(*command);
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
  command->add_option(
      "--draft", flags->serve.draft,
      "Smaller model of the same vocabulary that guesses instead, or 'mtp': the model's own "
      "multi-token-prediction layer (DeepSeek-V3); 4 tokens unless --guess says otherwise; answers "
      "stay the same");
  command
      ->add_option("--worker-silence", flags->worker_silence_s,
                   "Seconds without a sign of life after which a worker process is replaced")
      ->check(positive_number())
      ->capture_default_str();
  command->add_option("--stuck-after", flags->stuck_s, "Seconds of one step after which /health/live says no")
      ->check(positive_number())
      ->capture_default_str();
  command
      ->add_option("--unload-timeout", flags->unload_timeout_s,
                   "Seconds for requests of a model that is unloaded")
      ->check(non_negative_number())
      ->capture_default_str();
  command->add_option("--log-format", flags->log_format, "One line for each request and event: text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->add_flag("--quiet", flags->quiet, "No line for each request");
  command->footer(
      "Examples: tessera serve --model runs/quickstart/model --layout tp=2 --port 8000\n"
      "         tessera serve --model DIR --prefill-workers 1 --prefill-from 256\n"
      "         tessera serve --model DIR --host 0.0.0.0 --api-keys keys.toml --tls-cert cert.pem --tls-key "
      "key.pem\n"
      "         tessera serve --model small=DIR --model large=DIR --grpc-port 8001\n"
      "         curl http://127.0.0.1:8000/v1/completions -d '{\"model\":\"model\",\"prompt\":\"Once\"}'");
  command->callback([flags] {
    auto place = rank_place();
    // With several models there are no other ranks.
    auto paths = parse_model_paths(flags->models, flags->name);
    if (paths) flags->serve.model = paths->front().path;
    Status status = place ? run_follower(*flags, *place) : run_server(*flags);
    if (!status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
