#include "cli/torch/model_host.h"

#include <ctime>
#include <filesystem>

#include "cli/torch/rank_team.h"
#include "core/log.h"

namespace tessera::cli {

namespace {

namespace fs = std::filesystem;

// What an engine stands on, in the order of its making.
struct Base {
  std::unique_ptr<serve::Team> team;
  std::unique_ptr<PrefillProcesses> prefill;
  serve::ServedModel model;
  std::unique_ptr<serve::PrefillPool> prefill_pool;
};

std::string directory_name(const std::string& model) {
  auto path = fs::weakly_canonical(model);
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

// NAME=DIR each.
Status add_adapters(const HostOptions& options, serve::ServedModel& model) {
  if (!options.adapters.empty() && options.prefill.workers > 0)
    return invalid("--adapter beside --prefill-workers: adapters are served on one process");
  for (const std::string& adapter : options.adapters) {
    const size_t end = adapter.find('=');
    if (end == std::string::npos || end == 0 || end + 1 == adapter.size())
      return invalid("--adapter '{}': expected NAME=DIRECTORY", adapter);
    const std::string name = adapter.substr(0, end);
    for (const auto& other : model.adapters())
      if (other.name == name) return invalid("--adapter '{}': the name '{}' is given twice", adapter, name);
    if (name == options.name) return invalid("--adapter '{}': '{}' is the model's own name", adapter, name);
    TESSERA_RETURN_IF_ERROR(model.add_adapter(name, adapter.substr(end + 1)));
  }
  return {};
}

// A template that cannot be run takes away chat only; completions are served all the same.
serve::ServedName served_name(const HostOptions& options, const data::TokenizerPtr& tokenizer,
                              const serve::ServedModel& model, const serve::Engine& engine) {
  serve::ServedName out{.name = options.name,
                        .max_length = engine.max_length(),
                        .end_tokens = engine.end_tokens(),
                        .vocabulary = std::make_shared<const serve::Vocabulary>(tokenizer)};
  for (const auto& adapter : model.adapters()) out.adapters.push_back(adapter.name);
  auto chat = chat::load_model_chat(options.serve.model, options.chat_template);
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

}  // namespace

Result<std::vector<ModelPath>> parse_model_paths(const std::vector<std::string>& given,
                                                 const std::string& name) {
  std::vector<ModelPath> out;
  if (!name.empty() && given.size() > 1)
    return invalid("--served-model-name names one model; with several give --model NAME=PATH for each");
  for (const std::string& text : given) {
    size_t equals = text.find('=');
    bool named = equals != text.npos && equals > 0 && !fs::exists(text);
    ModelPath one{.name = named ? text.substr(0, equals) : name,
                  .path = named ? text.substr(equals + 1) : text};
    if (one.name.empty()) one.name = directory_name(one.path);
    for (const ModelPath& other : out)
      if (other.name == one.name)
        return invalid("two models are called '{}'; give --model NAME=PATH with different names", one.name);
    out.push_back(std::move(one));
  }
  return out;
}

Result<std::unique_ptr<serve::HostedModel>> host_model(const HostOptions& options) {
  const serve::ServeOptions& sizes = options.sizes;
  TESSERA_ASSIGN_OR_RETURN(auto team, RankTeam::start({.layout = sizes.layout,
                                                       .kv_tokens = sizes.kv_tokens,
                                                       .silence_s = options.worker_silence_s}));
  TESSERA_ASSIGN_OR_RETURN(auto prefill,
                           PrefillProcesses::start(options.prefill, sizes, options.worker_silence_s));
  auto hosted = std::make_unique<serve::HostedModel>();
  TESSERA_ASSIGN_OR_RETURN(hosted->tokenizer, serve::load_served_tokenizer(sizes.model, sizes.tokenizer));
  TESSERA_ASSIGN_OR_RETURN(auto model, serve::load_model(sizes, 0, true));
  TESSERA_RETURN_IF_ERROR(add_adapters(options, model));
  TESSERA_RETURN_IF_ERROR(team->meet());
  TESSERA_ASSIGN_OR_RETURN(auto pool, prefill->meet());
  auto base =
      std::make_shared<Base>(Base{std::move(team), std::move(prefill), std::move(model), std::move(pool)});
  hosted->base = base;
  serve::EngineOptions engine = options.engine;
  engine.scheduling = serve::scheduling_of(sizes);
  engine.kv_folder = sizes.kv_disk_folder;
  engine.prefill = base->prefill_pool.get();
  TESSERA_ASSIGN_OR_RETURN(engine.draft, options.serve.load_draft(sizes, base->model.spec()));
  TESSERA_ASSIGN_OR_RETURN(hosted->engine,
                           serve::Engine::start(base->model, *base->team, hosted->tokenizer, engine));
  hosted->name = served_name(options, hosted->tokenizer, base->model, *hosted->engine);
  hosted->created = std::time(nullptr);
  hosted->description =
      fmt::format("layout {}, {}, context {} tokens, KV cache {} tokens", to_string(sizes.layout), sizes.dtype,
                  hosted->engine->max_length(), engine.scheduling.capacity_tokens());
  return hosted;
}

}  // namespace tessera::cli
