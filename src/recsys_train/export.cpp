#include "recsys_train/export.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "checkpoint/safetensors.h"
#include "core/clock.h"
#include "core/file.h"
#include "recsys_train/run.h"

namespace tessera::recsys_train {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int64_t kFormat = 1;

Error damaged(const fs::path& path, std::string_view what) {
  return make_error(ErrorCode::data_loss, "{}: {}; export the model again", path.string(), what);
}

// ---- model.json ----

json to_json(const recsys::GroupOptions& group) {
  const recsys::InitOptions& init = group.init;
  return {{"name", group.name},
          {"dim", group.dim},
          {"row_type", recsys::to_string(group.row_type)},
          {"optimizer", recsys::to_string(group.optimizer.kind)},
          {"momentum", group.optimizer.momentum},
          {"admission", recsys::to_string(group.admission.kind)},
          {"eviction", recsys::to_string(group.eviction.kind)},
          {"init",
           {{"kind", recsys::to_string(init.kind)},
            {"low", init.low},
            {"high", init.high},
            {"mean", init.mean},
            {"deviation", init.deviation},
            {"value", init.value},
            {"seed", init.seed}}}};
}

Result<recsys::GroupOptions> read_group(const json& from) {
  recsys::GroupOptions group{.name = from.at("name"), .dim = from.at("dim")};
  auto text = [&](const char* key) { return from.at(key).get<std::string>(); };
  TESSERA_ASSIGN_OR_RETURN(group.row_type, recsys::parse_row_type(text("row_type")));
  TESSERA_ASSIGN_OR_RETURN(group.optimizer.kind, recsys::parse_optimizer(text("optimizer")));
  TESSERA_ASSIGN_OR_RETURN(group.admission.kind, recsys::parse_admission(text("admission")));
  TESSERA_ASSIGN_OR_RETURN(group.eviction.kind, recsys::parse_eviction(text("eviction")));
  group.optimizer.momentum = from.at("momentum");
  const json& init = from.at("init");
  TESSERA_ASSIGN_OR_RETURN(group.init.kind, recsys::parse_init(init.at("kind").get<std::string>()));
  group.init.low = init.at("low");
  group.init.high = init.at("high");
  group.init.mean = init.at("mean");
  group.init.deviation = init.at("deviation");
  group.init.value = init.at("value");
  group.init.seed = init.at("seed");
  return group;
}

json to_json(const recsys_data::EncodedFeatures& features) {
  json numbers = json::array(), slots = json::array();
  for (size_t i = 0; i < features.numeric.size(); ++i) {
    const auto& encoding = features.number_encodings[i];
    numbers.push_back({{"name", features.numeric[i]},
                       {"encoding", recsys_data::to_string(encoding.kind)},
                       {"mean", encoding.mean},
                       {"scale", encoding.scale}});
  }
  for (size_t s = 0; s < features.slots.size(); ++s) {
    const auto& encoding = features.id_encodings[s];
    slots.push_back({{"name", features.slots[s]},
                     {"encoding", recsys_data::to_string(encoding.kind)},
                     {"cardinality", encoding.cardinality},
                     {"several", encoding.several}});
  }
  return {{"dense", numbers}, {"sparse", slots}};
}

Result<recsys_data::EncodedFeatures> read_features(const json& from) {
  recsys_data::EncodedFeatures features;
  for (const json& number : from.at("dense")) {
    recsys_data::NumberEncoding encoding{.mean = number.at("mean"), .scale = number.at("scale")};
    TESSERA_ASSIGN_OR_RETURN(encoding.kind,
                             recsys_data::parse_number_encoding(number.at("encoding").get<std::string>()));
    features.add_number(number.at("name"), encoding);
  }
  for (const json& slot : from.at("sparse")) {
    recsys_data::IdEncoding encoding{.cardinality = slot.at("cardinality"), .several = slot.at("several")};
    TESSERA_ASSIGN_OR_RETURN(encoding.kind,
                             recsys_data::parse_id_encoding(slot.at("encoding").get<std::string>()));
    features.add_slot(slot.at("name"), encoding);
  }
  return features;
}

json to_json(const LookupPlan& plan) {
  json slots = json::array();
  for (const SlotPlan& slot : plan.slots)
    slots.push_back({{"group", slot.group},
                     {"pooling", to_string(slot.pooling)},
                     {"sequence", slot.sequence},
                     {"rows_of", slot.rows_of}});
  return {{"slots", slots}, {"groups", plan.num_groups}, {"dim", plan.dim}, {"wide", plan.wide}};
}

Result<LookupPlan> read_lookup(const json& from) {
  LookupPlan plan{.num_groups = from.at("groups"), .dim = from.at("dim"), .wide = from.at("wide")};
  for (const json& slot : from.at("slots")) {
    TESSERA_ASSIGN_OR_RETURN(Pooling pooling, parse_pooling(slot.at("pooling").get<std::string>()));
    plan.slots.push_back({.group = slot.at("group"),
                          .pooling = pooling,
                          .sequence = slot.value("sequence", int64_t{0}),
                          .rows_of = slot.value("rows_of", int64_t{-1})});
  }
  return plan;
}

Result<ExportedModel> read_model(const json& from) {
  if (from.at("format") != kFormat) return invalid("format {}, expected {}", from.at("format").dump(), kFormat);
  ExportedModel model;
  const json& dense = from.at("model");
  model.model = {.kind = dense.at("kind"),
                 .bottom = dense.at("bottom"),
                 .top = dense.at("top"),
                 .cross_layers = dense.at("cross_layers"),
                 .cross_rank = dense.at("cross_rank"),
                 .attention = dense.value("attention", std::vector<int64_t>()),
                 .attention_softmax = dense.value("attention_softmax", false)};
  model.num_servers = from.at("servers");
  TESSERA_ASSIGN_OR_RETURN(model.features, read_features(from.at("features")));
  TESSERA_ASSIGN_OR_RETURN(model.lookup, read_lookup(from.at("lookup")));
  for (const json& group : from.at("groups")) {
    TESSERA_ASSIGN_OR_RETURN(auto options, read_group(group));
    model.store_groups.push_back(std::move(options));
  }
  return model;
}

// What the parts say of each other.
bool is_consistent(const ExportedModel& model) {
  const LookupPlan& plan = model.lookup;
  if (plan.slots.size() != model.features.slots.size() || plan.num_groups < 1 || model.num_servers < 1)
    return false;
  if (static_cast<int64_t>(model.store_groups.size()) != plan.store_groups()) return false;
  for (const SlotPlan& slot : plan.slots)
    if (slot.group < 0 || slot.group >= plan.num_groups || slot.sequence < 0 ||
        slot.rows_of >= static_cast<int64_t>(plan.slots.size()) || (slot.sequence > 0 && slot.rows_of < 0))
      return false;
  for (int64_t g = 0; g < plan.store_groups(); ++g) {
    const int64_t dim = plan.wide && g % 2 == 1 ? 1 : plan.dim;
    if (model.store_groups[static_cast<size_t>(g)].dim != dim) return false;
  }
  return true;
}

// Runs `read` on the JSON of a file; what nlohmann throws becomes an error with the file's name.
template <class Read>
auto read_json(const fs::path& path, const Read& read) -> decltype(read(json())) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path));
  try {
    auto value = read(json::parse(text));
    return value.ok() ? std::move(value) : value.error().within(path.string());
  } catch (const json::exception& failure) {
    return damaged(path, failure.what());
  }
}

fs::path version_path(const fs::path& folder, int64_t number) {
  return folder / fmt::format("version-{}.json", number);
}

// The number in "version-N.json", else 0.
int64_t version_of(const std::string& name) {
  constexpr std::string_view kHead = "version-", kTail = ".json";
  if (!name.starts_with(kHead) || !name.ends_with(kTail)) return 0;
  int64_t number = 0;
  for (char digit : name.substr(kHead.size(), name.size() - kHead.size() - kTail.size())) {
    if (digit < '0' || digit > '9' || number > INT64_MAX / 10 - 1) return 0;
    number = number * 10 + (digit - '0');
  }
  return number;
}

}  // namespace

Result<ExportedModel> exported_model(const RunConfig& run, const Setup& setup) {
  if (!setup.facts.encodings)
    return invalid(
        "this data does not say how its values become numbers and ids, so the model cannot be exported");
  ExportedModel model{.model = run.model,
                      .features = {},
                      .lookup = setup.embeddings.lookup,
                      .store_groups = setup.embeddings.store_groups,
                      .num_servers = run.servers};
  const recsys_data::Features& features = setup.facts.features;
  const recsys_data::FeatureEncodings& encodings = *setup.facts.encodings;
  TESSERA_REQUIRE(
      encodings.numbers.size() == features.numeric.size() && encodings.ids.size() == features.slots.size(),
      "{} and {} encodings of {} and {} features", encodings.numbers.size(), encodings.ids.size(),
      features.numeric.size(), features.slots.size());
  for (size_t i = 0; i < features.numeric.size(); ++i)
    model.features.add_number(features.numeric[i], encodings.numbers[i]);
  for (size_t s = 0; s < features.slots.size(); ++s)
    model.features.add_slot(features.slots[s], encodings.ids[s]);
  return model;
}

std::string to_text(const ExportedModel& model) {
  json groups = json::array();
  for (const auto& group : model.store_groups) groups.push_back(to_json(group));
  json out = {{"format", kFormat},
              {"model",
               {{"kind", model.model.kind},
                {"bottom", model.model.bottom},
                {"top", model.model.top},
                {"cross_layers", model.model.cross_layers},
                {"cross_rank", model.model.cross_rank},
                {"attention", model.model.attention},
                {"attention_softmax", model.model.attention_softmax}}},
              {"features", to_json(model.features)},
              {"lookup", to_json(model.lookup)},
              {"groups", groups},
              {"servers", model.num_servers}};
  return out.dump(1) + "\n";
}

Result<ExportedModel> read_exported_model(const fs::path& folder) {
  const fs::path path = folder / "model.json";
  TESSERA_ASSIGN_OR_RETURN(auto model, read_json(path, read_model));
  if (!is_consistent(model)) return damaged(path, "its parts do not fit each other");
  return model;
}

// ---- dense weights ----

Result<std::unique_ptr<DenseModel>> make_dense_model(const ExportedModel& model) {
  return DenseModel::create(model.model, static_cast<int64_t>(model.features.numeric.size()),
                            static_cast<int64_t>(model.features.slots.size()), model.lookup.dim, 0,
                            model.lookup.sequences());
}

Status write_dense(const fs::path& path, const Parameters& parameters, const at::Tensor& flat_values) {
  std::vector<std::pair<std::string, checkpoint::StoredTensor>> tensors;
  for (const Parameter& parameter : parameters.all())
    tensors.push_back({parameter.name, {.dtype = at::kFloat, .shape = parameter.value.sizes().vec()}});
  TESSERA_ASSIGN_OR_RETURN(auto plan, checkpoint::plan_safetensors(tensors));
  std::string content = plan.head;
  // Parameters lie one behind the other in the flat tensor, as in the file.
  content.append(reinterpret_cast<const char*>(flat_values.const_data_ptr<float>()),
                 static_cast<size_t>(flat_values.numel()) * sizeof(float));
  return write_file_atomically(path, content);
}

Status read_dense(const fs::path& path, const Parameters& parameters) {
  TESSERA_ASSIGN_OR_RETURN(auto file, checkpoint::SafetensorsFile::open(path));
  for (const Parameter& parameter : parameters.all()) {
    const auto* stored = file.find(parameter.name);
    if (stored == nullptr) return damaged(path, fmt::format("there is no tensor '{}'", parameter.name));
    if (stored->dtype != at::kFloat || stored->shape != parameter.value.sizes().vec())
      return damaged(path,
                     fmt::format("tensor '{}' has another type or shape than model.json says", parameter.name));
    auto bytes = file.bytes(*stored);
    std::memcpy(parameter.value.data_ptr<float>(), bytes.data(), bytes.size());
  }
  return {};
}

// ---- versions ----

Result<ExportedVersion> read_exported_version(const fs::path& folder, int64_t number) {
  return read_json(version_path(folder, number), [](const json& from) -> Result<ExportedVersion> {
    return ExportedVersion{.number = from.at("number"),
                           .base = from.at("base"),
                           .step = from.at("step"),
                           .time = from.at("time"),
                           .dense = from.at("dense"),
                           .rows = from.at("rows")};
  });
}

int64_t newest_exported_version(const fs::path& folder) {
  int64_t newest = 0;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(folder, failure))
    newest = std::max(newest, version_of(entry.path().filename().string()));
  return newest;
}

Result<std::unique_ptr<Exporter>> Exporter::open(ExportOptions options, const ExportedModel& model,
                                                 EmbeddingWorker& worker, DenseModel& dense) {
  options.folder = fs::absolute(options.folder);  // for servers that are other processes
  std::error_code failure;
  fs::create_directories(options.folder, failure);
  if (failure) return system_error("cannot make the export folder", options.folder, failure.value());
  const fs::path path = options.folder / "model.json";
  const std::string text = to_text(model);
  if (fs::exists(path)) {
    TESSERA_ASSIGN_OR_RETURN(std::string there, read_file(path));
    if (there != text)
      return invalid("{}: another model was exported there; give a folder of its own", options.folder.string());
  }
  TESSERA_RETURN_IF_ERROR(write_file_atomically(path, text));
  std::unique_ptr<Exporter> exporter(new Exporter(std::move(options), model.num_servers, worker, dense));
  exporter->next_request_ = uint64_t{std::random_device{}()} << 32;
  exporter->next_ = newest_exported_version(exporter->options_.folder) + 1;
  exporter->thread_ = std::thread([raw = exporter.get()] { raw->work(); });
  return exporter;
}

Exporter::~Exporter() {
  {
    std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Exporter::after_step(int64_t steps_done) {
  if (options_.interval_s <= 0 || seconds_since(last_) < options_.interval_s) return;
  std::lock_guard lock(mutex_);
  if (busy_) return;
  last_ = Clock::now();
  busy_ = true;
  order_ = Order{steps_done, dense_.parameters().flat_values().clone()};
  changed_.notify_all();
}

void Exporter::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return order_ || ends_; });
    if (!order_) return;
    Order order = *std::exchange(order_, std::nullopt);
    lock.unlock();
    Status status = write(order);
    lock.lock();
    if (status_.ok()) status_ = std::move(status);
    busy_ = false;
    changed_.notify_all();
  }
}

Status Exporter::finish(int64_t steps_done) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
    TESSERA_RETURN_IF_ERROR(status_);
  }
  return write({steps_done, dense_.parameters().flat_values().clone()});
}

Status Exporter::write(const Order& order) {
  const bool full = needs_full_ || next_ - base_ > options_.most_deltas;
  Status status = write(order, full);
  // A server that took the place of another has nothing to build on.
  if (full || status.ok() || status.error().code != ErrorCode::not_found) return status;
  return write(order, true);
}

Status Exporter::write(const Order& order, bool full) {
  needs_full_ = true;  // when this one fails, its changes are in no file
  const int64_t number = next_++;
  const VersionRequest request{.number = number, .full = full, .id = next_request_++};
  ExportedVersion version{
      .number = number, .base = full ? number : base_, .step = order.step, .time = unix_time()};
  version.dense = fmt::format("dense-{}.safetensors", number);
  if (Status status = write_files(order, request, version); !status.ok()) {
    remove_files(version);
    return status;
  }
  needs_full_ = false;
  ++versions_;
  if (!full) return {};
  base_before_ = std::exchange(base_, number);
  remove_old();
  return {};
}

Status Exporter::write_files(const Order& order, const VersionRequest& request, ExportedVersion& version) {
  auto servers = worker_.save_version(options_.folder.string(), request);
  for (int64_t s = 0; s < (servers ? *servers : num_servers_); ++s)
    version.rows.push_back(version_rows_file(s, request));
  if (!servers) return servers.error();
  TESSERA_RETURN_IF_ERROR(write_dense(options_.folder / version.dense, dense_.parameters(), order.weights));
  json out = {{"number", version.number}, {"base", version.base},   {"step", version.step},
              {"time", version.time},     {"dense", version.dense}, {"rows", version.rows}};
  return write_file_atomically(version_path(options_.folder, version.number), out.dump() + "\n");
}

void Exporter::remove_files(const ExportedVersion& version) const {
  std::error_code ignored;
  fs::remove(options_.folder / version.dense, ignored);
  for (const std::string& rows : version.rows) fs::remove(options_.folder / rows, ignored);
}

// Versions before the base before this one: whoever still reads them is a whole base behind.
void Exporter::remove_old() {
  for (const auto& entry : fs::directory_iterator(options_.folder)) {
    const int64_t number = version_of(entry.path().filename().string());
    if (number == 0 || number >= base_before_) continue;
    auto version = read_exported_version(options_.folder, number);
    std::error_code ignored;
    fs::remove(entry.path(), ignored);
    if (version.ok()) remove_files(*version);
  }
}

}  // namespace tessera::recsys_train
