// tessera recsys serve: scores of an exported model over HTTP.
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/recsys_parent.h"
#include "cli/torch/front_options.h"
#include "recsys_serve/score_api.h"

namespace tessera::cli {
namespace {

struct Arguments {
  recsys_serve::ServedModel::Options model;
  recsys_serve::ScoreApiOptions api;
  FrontFlags front;
  int64_t threads = 1;
};

void print_line(const std::string& line) {
  std::fprintf(stdout, "%s\n", line.c_str());
  std::fflush(stdout);
}

Status run(const Arguments& arguments) {
  at::set_num_threads(static_cast<int>(arguments.threads));
  TESSERA_ASSIGN_OR_RETURN(auto server, arguments.front.listen());
  TESSERA_ASSIGN_OR_RETURN(auto model, recsys_serve::ServedModel::open(arguments.model));
  const std::string folder = arguments.model.folder.string();
  recsys_serve::ScoreApiOptions options = arguments.api;
  options.version = TESSERA_VERSION;
  if (options.name.empty())
    options.name = std::filesystem::canonical(arguments.model.folder).filename().string();
  auto api = std::make_unique<recsys_serve::ScoreApi>(*model, *server, options);
  TESSERA_ASSIGN_OR_RETURN(auto handler,
                           arguments.front.guarded([&](auto exchange) { api->handle(std::move(exchange)); }));
  auto now = model->standing();
  print_line(fmt::format("{} on {}",
                         now.ready
                             ? fmt::format("serving version {} ({} rows) of {}", now.version, now.rows, folder)
                             : fmt::format("waiting for a model in {}", folder),
                         arguments.front.url(*server)));
  bool drained = server->run(std::move(handler));
  api.reset();
  if (!drained) return make_error(ErrorCode::aborted, "stopped before all requests had finished");
  print_line("drained: all requests have finished");
  return {};
}

}  // namespace

void add_recsys_serve(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  arguments->api.name.clear();
  arguments->front.http.drain_timeout_s = 30;
  CLI::App* command = recsys_parent(app).add_subcommand(
      "serve", "Serve an exported model over HTTP, following the versions that training writes");
  command->add_option("--model", arguments->model.folder, "Folder of `recsys train --export`")->required();
  command->add_option("--served-model-name", arguments->api.name,
                      "What KServe clients call it; the folder's name if empty");
  arguments->front.add_to(*command);
  command->add_option("--workers", arguments->api.workers, "Requests that are computed at once")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--threads", arguments->threads, "Threads of one matrix product")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--max-rows", arguments->api.max_rows, "Rows of one request")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--max-waiting", arguments->api.max_waiting, "Requests that wait; more are refused")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--poll", arguments->model.poll_s, "Seconds between two looks for a new version")
      ->check(non_negative_number())
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  tessera recsys train --config examples/recsys/adult.toml data.path=data/adult --export runs/adult\n"
      "  tessera recsys serve --model runs/adult --port 8000\n"
      "  curl http://127.0.0.1:8000/v1/score -d "
      "'{\"dense\":{\"age\":[39],...},\"sparse\":{\"sex\":[\"Male\"],...}}'\n"
      "  curl http://127.0.0.1:8000/v1/model      the features it wants, and where it stands");
  command->callback([arguments] {
    if (Status status = run(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
