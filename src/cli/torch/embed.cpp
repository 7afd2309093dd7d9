// tessera embed: a model that turns texts into vectors, behind OpenAI's HTTP interface.
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/torch/front_options.h"
#include "cli/torch/serve_options.h"
#include "serve/embedding_api.h"

namespace tessera::cli {

namespace {

struct EmbedCommand {
  ServeFlags serve;
  FrontFlags front;
  std::string name, pooling;
  int64_t max_waiting = 4096;
  bool raw = false;
};

std::string name_of(const EmbedCommand& flags) {
  if (!flags.name.empty()) return flags.name;
  const auto path = std::filesystem::weakly_canonical(flags.serve.model);
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

// Decoders are trained so that their last token knows all of the text, encoders that each token does.
Result<serve::Pooling> pooling_of(const EmbedCommand& flags, const serve::ServedSpec& spec) {
  if (!flags.pooling.empty()) return serve::parse_pooling(flags.pooling);
  return spec.encoder ? serve::Pooling::mean : serve::Pooling::last;
}

Status run_embeddings(const EmbedCommand& flags) {
  TESSERA_ASSIGN_OR_RETURN(auto options, flags.serve.options());
  TESSERA_ASSIGN_OR_RETURN(auto server, flags.front.listen());
  flags.serve.apply_threads(1);
  TESSERA_ASSIGN_OR_RETURN(auto tokenizer, serve::load_served_tokenizer(options.model, options.tokenizer));
  TESSERA_ASSIGN_OR_RETURN(auto model, serve::load_model(options, 0, true));
  serve::EmbeddingOptions embedding{
      .normalize = !flags.raw, .max_batch_tokens = options.max_batch_tokens, .max_waiting = flags.max_waiting};
  TESSERA_ASSIGN_OR_RETURN(embedding.pooling, pooling_of(flags, model.spec()));
  TESSERA_ASSIGN_OR_RETURN(auto engine, serve::EmbeddingEngine::start(model, embedding));
  serve::EmbeddingApi api(*engine, *server, tokenizer, name_of(flags));
  std::printf("embeddings of %s on %s (%lld elements, texts of up to %lld tokens)\n", name_of(flags).c_str(),
              flags.front.url(*server).c_str(), static_cast<long long>(engine->width()),
              static_cast<long long>(engine->max_length()));
  std::fflush(stdout);
  TESSERA_ASSIGN_OR_RETURN(auto handler,
                           flags.front.guarded([&api](auto exchange) { api.handle(std::move(exchange)); }));
  if (!server->run(std::move(handler)))
    return make_error(ErrorCode::aborted, "stopped before all requests had finished");
  std::printf("drained: all requests have finished\n");
  return {};
}

}  // namespace

void add_embed(CLI::App& app) {
  auto flags = std::make_shared<EmbedCommand>();
  CLI::App* command = app.add_subcommand("embed", "Serve a model's embeddings over OpenAI's HTTP interface");
  flags->serve.add_to(*command);
  flags->front.add_to(*command);
  command->add_option("--served-model-name", flags->name,
                      "What clients call it; the directory's name if empty");
  command->add_option(
      "--pooling", flags->pooling,
      "Of a text's tokens: mean, cls (the first) or last; empty: mean of encoders, last of decoders");
  command->add_option("--max-waiting", flags->max_waiting, "Texts that wait; more are refused")
      ->check(positive_number())
      ->capture_default_str();
  command->add_flag("--raw", flags->raw, "Vectors as they are, not of length 1");
  command->footer(
      "Examples: tessera embed --model esm2_t6_8M_UR50D --port 8000\n"
      "         curl http://127.0.0.1:8000/v1/embeddings -d "
      "'{\"model\":\"esm2_t6_8M_UR50D\",\"input\":\"MKTAYIAKQR\"}'");
  command->callback([flags] {
    Status status = run_embeddings(*flags);
    if (!status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
