#include "cli/torch/calibrate_serving.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "checkpoint/packed.h"
#include "core/cpu_level.h"
#include "core/file.h"
#include "kernels/threads.h"
#include "plan/catalogue.h"
#include "serve/setup.h"
#include "serve/step_times.h"

namespace tessera::cli {
namespace {

using plan::serving::Deployment;
using plan::serving::TimedSteps;

// "int8" and "int4" of a packed directory, else the type of the activations.
Result<std::string> precision_of(const std::filesystem::path& model, const std::string& dtype) {
  const auto manifest = model / checkpoint::kPackedManifest;
  if (!std::filesystem::exists(manifest)) return dtype;
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(manifest));
  auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("tensors"))
    return invalid("{}: is no packed manifest", manifest.string());
  for (const auto& [name, tensor] : json.at("tensors").items())
    if (name.find("down_proj") != std::string::npos && tensor.contains("kind"))
      return tensor.at("kind").get<std::string>().substr(0, 4);
  return dtype;
}

// What is known of the host and the server without timing anything.
Result<Deployment> deployment_of(const CalibrateServing& options, const serve::ServeOptions& server) {
  Deployment d;
  TESSERA_ASSIGN_OR_RETURN(d.model, plan::find_model((server.model / "config.json").string()));
  TESSERA_ASSIGN_OR_RETURN(std::string precision, precision_of(server.model, options.dtype));
  TESSERA_ASSIGN_OR_RETURN(WeightFormat format, plan::serving::parse_weight_format(precision));
  d.formats = plan::serving::formats_for(d.model, format, format, options.dtype == "bf16" ? 2 : 4);
  d.device.name = "host";
  d.device.generation = "host";
  d.device.memory_bytes =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  d.engine.name = "tessera";
  d.engine.version = "";
  d.engine.prompt_s = 1e-3;
  d.engine.admission_steps = 1;
  d.engine.clump = 1;
  d.engine.expert_skew = 0.05;
  d.engine.budget_tokens = static_cast<double>(server.max_batch_tokens);
  d.engine.max_running = static_cast<double>(server.max_running);
  d.engine.share_of_free = true;  // as serve::choose_kv_tokens() does
  d.engine.memory_share = 0.25;
  d.engine.workspace_bytes = 0;
  d.engine.kv_bytes = d.formats.kv_bytes;
  return d;
}

std::vector<TimedSteps> timed_steps(const serve::StepTimes& times, int64_t chunk) {
  std::vector<TimedSteps> timed;
  for (const auto& point : times.decode)
    timed.push_back(
        {{plan::serving::decode_load(static_cast<double>(point.sequences), point.context)}, point.seconds});
  for (const auto& point : times.prompts)
    timed.push_back({plan::serving::prompt_loads(point.tokens, chunk), point.seconds});
  for (const auto& point : times.mixed)
    timed.push_back(
        {{plan::serving::mixed_load(static_cast<double>(point.sequences), point.context, point.tokens)},
         point.seconds});
  return timed;
}

Result<serve::StepTimes> time_engine(const CalibrateServing& options, const serve::ServeOptions& server) {
  TESSERA_ASSIGN_OR_RETURN(auto model, serve::load_model(server, 0, true));
  const int64_t vocab = model.spec().vocab, positions = model.spec().max_positions;
  auto team = serve::make_single_team();
  TESSERA_ASSIGN_OR_RETURN(auto engine, serve::Engine::start(model, *team, serve::letters(vocab),
                                                             {.scheduling = serve::scheduling_of(server)}));
  return serve::time_steps(*engine, {.vocab = vocab,
                                     .max_running = server.max_running,
                                     .max_batch_tokens = server.max_batch_tokens,
                                     .kv_tokens = server.kv_tokens,
                                     .max_length = std::min(positions, server.kv_tokens),
                                     .progress = options.progress});
}

}  // namespace

Result<CalibratedServing> calibrate_serving(const CalibrateServing& options) {
  const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  kernels::set_kernel_threads(options.threads > 0 ? options.threads : cores);
  serve::ServeOptions server{.model = options.model, .dtype = options.dtype};
  TESSERA_RETURN_IF_ERROR(serve::check(server));
  TESSERA_ASSIGN_OR_RETURN(server.kv_tokens, serve::choose_kv_tokens(server));
  TESSERA_ASSIGN_OR_RETURN(Deployment start, deployment_of(options, server));
  TESSERA_ASSIGN_OR_RETURN(serve::StepTimes times, time_engine(options, server));
  CalibratedServing done{.fit = {}, .timed = timed_steps(times, server.max_batch_tokens)};
  TESSERA_ASSIGN_OR_RETURN(done.fit, plan::serving::fit_host(start, done.timed));
  double load[1] = {0};
  getloadavg(load, 1);
  plan::serving::HostFit& fit = done.fit;
  fit.host.provenance = {
      {"constants",
       fmt::format("fitted here on {} timed loads of the engine with {}, {} threads, load average {:.1f}",
                   done.timed.size(), std::filesystem::path(options.model).filename().string(),
                   options.threads > 0 ? options.threads : cores, load[0])},
      {"errors",
       fmt::format("of the fit: mean {:.1f} %, largest {:.1f} %", 100 * fit.mean_error, 100 * fit.max_error)},
      {"prompt_s", "assumed: HTTP and tokenizing on this host"}};
  return done;
}

}  // namespace tessera::cli
