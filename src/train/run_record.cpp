#include "train/run_record.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "core/file.h"
#include "kernels/kernels.h"

namespace tessera::train {
namespace {

using nlohmann::json;

constexpr int64_t kTracedSteps = 6;  // newest steps in timeline.json

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

json machine() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  std::string cpu = "unknown", line;
  std::ifstream info("/proc/cpuinfo");
  while (std::getline(info, line))
    if (line.rfind("model name", 0) == 0) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  double memory =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGE_SIZE));
  return {{"host", host},
          {"cpu", cpu},
          {"cores", std::thread::hardware_concurrency()},
          {"memory_gib", memory / (1 << 30)},
          {"features", {kernels::isa()}}};
}

// What `tessera data pack` said about the tokens, if its report lies beside them.
json data_card(const RunConfig& run) {
  json card = {{"origin", run.data.source == "synthetic" ? "synthetic" : run.data.train},
               {"vocab", run.model.vocab}};
  auto text = read_file(std::filesystem::path(run.run_dir) / "data.json");
  if (!text) return card;
  json packed = json::parse(*text, nullptr, false);
  if (packed.is_object()) card.update(packed);
  return card;
}

}  // namespace

RunRecord::RunRecord(const RunConfig& run, std::string command)
    : run_(run), command_(std::move(command)), started_(utc_now()) {}
RunRecord::~RunRecord() = default;

Result<std::unique_ptr<RunRecord>> RunRecord::open(const RunConfig& run, std::string command) {
  std::error_code failure;
  std::filesystem::create_directories(run.run_dir, failure);
  if (failure) return system_error("create", run.run_dir, failure.value());
  std::unique_ptr<RunRecord> record(new RunRecord(run, std::move(command)));
  TESSERA_ASSIGN_OR_RETURN(record->board_,
                           TensorBoardWriter::open(std::filesystem::path(run.run_dir) / "tensorboard"));
  record->read_prediction();
  TESSERA_RETURN_IF_ERROR(record->write_card("running", ""));
  return record;
}

void RunRecord::read_prediction() {
  auto text = read_file(std::filesystem::path(run_.run_dir) / "plan.json");
  if (!text) return;
  json plan = json::parse(*text, nullptr, false);
  if (!plan.is_object() || !plan.contains("results")) return;
  for (const json& result : plan["results"]) {
    if (!result.contains("layout") || !result.contains("step_time_s") || !result["step_time_s"].is_number())
      continue;
    const json& layout = result["layout"];
    auto degree = [&](const char* key) { return layout.value(key, int64_t{1}); };
    const Layout& mine = run_.layout;
    bool same = degree("dp") == mine.dp && degree("fsdp") == mine.fsdp && degree("tp") == mine.tp &&
                degree("pp") == mine.pp && degree("ep") == mine.ep &&
                layout.value("recompute", std::string("none")) == to_string(mine.recompute);
    if (!same) continue;
    predicted_step_s_ = result["step_time_s"].get<double>();
    return;
  }
}

Status RunRecord::step(const StepReport& report, const std::vector<std::vector<TimelineEvent>>& timelines) {
  TESSERA_RETURN_IF_ERROR(flush_line());
  std::vector<int64_t> peaks;
  for (const RankMemory& memory : report.memory) peaks.push_back(memory.peak);
  memory_ = report.memory;
  double tokens_per_s = static_cast<double>(report.tokens) / report.seconds;
  line_ = {{"step", report.step},
           {"time", unix_seconds()},
           {"generation", generation_},
           {"loss", report.loss},
           {"aux_loss", report.aux_loss},
           {"gradient_norm", report.gradient_norm},
           {"learning_rate", report.learning_rate},
           {"tokens", report.tokens},
           {"seconds", report.seconds},
           {"tokens_per_s", tokens_per_s},
           {"exposed_comm_s", report.exposed_comm_s},
           {"hidden_comm_s", report.hidden_comm_s},
           {"bytes_sent", report.bytes_sent},
           {"expert_tokens", report.expert_tokens},
           {"memory_peak_bytes", peaks}};
  keep_timeline(report.step, timelines);
  for (const auto& [tag, value] : {std::pair{"train/loss", report.loss},
                                   {"train/aux_loss", report.aux_loss},
                                   {"train/gradient_norm", report.gradient_norm},
                                   {"train/learning_rate", report.learning_rate},
                                   {"speed/tokens_per_s", tokens_per_s},
                                   {"speed/step_s", report.seconds}})
    TESSERA_RETURN_IF_ERROR(board_->scalar(tag, value, report.step));
  return {};
}

Status RunRecord::evaluation(int64_t step, double loss) {
  evaluation_ = {{"valid_loss", loss}, {"step", step}};
  if (!line_.is_null()) line_["valid_loss"] = loss;
  return board_->scalar("valid/loss", loss, step);
}

Status RunRecord::flush_line() {
  if (line_.is_null()) return {};
  auto path = std::filesystem::path(run_.run_dir) / "metrics.jsonl";
  std::ofstream file(path, std::ios::app);
  file << line_.dump() << "\n" << std::flush;
  if (!file)
    return make_error(ErrorCode::resource_exhausted, "append to {}: the disk may be full", path.string());
  line_ = nullptr;
  return board_->flush();
}

void RunRecord::keep_timeline(int64_t step, const std::vector<std::vector<TimelineEvent>>& timelines) {
  double origin = std::chrono::duration<double>(start_.time_since_epoch()).count();
  for (size_t rank = 0; rank < timelines.size(); ++rank)
    for (const TimelineEvent& event : timelines[rank]) {
      TraceEvent trace{.name = event.name,
                       .process = static_cast<int64_t>(rank),
                       .begin_s = event.begin_s - origin,
                       .end_s = event.end_s - origin};
      trace.args["step"] = step;
      if (event.slot >= 0) trace.args["slot"] = event.slot;
      trace_.push_back(std::move(trace));
    }
  std::erase_if(trace_, [&](const TraceEvent& event) { return event.args.at("step") <= step - kTracedSteps; });
}

Status RunRecord::write_timeline() const {
  static constexpr std::string_view rows[] = {"compute"};
  return write_file_atomically(std::filesystem::path(run_.run_dir) / "timeline.json",
                               chrome_trace(trace_, rows));
}

Status RunRecord::write_memory() const {
  json ranks = json::array();
  for (size_t rank = 0; rank < memory_.size(); ++rank) {
    const RankMemory& memory = memory_[rank];
    int64_t rest = memory.step_peak - memory.weights - memory.optimizer - memory.gradients_peak;
    ranks.push_back({{"rank", rank},
                     {"peak_bytes", memory.peak},
                     {"classes",
                      {{"weights", memory.weights},
                       {"gradients", memory.gradients_peak},
                       {"optimizer", memory.optimizer},
                       {"activations", std::max<int64_t>(0, rest)},
                       {"copies", memory.peak - memory.step_peak}}}});
  }
  return write_file_atomically(std::filesystem::path(run_.run_dir) / "memory.json",
                               json{{"ranks", ranks}}.dump(1));
}

Status RunRecord::write_card(const std::string& status, const std::string& error) {
  ParameterCount parameters = count_parameters(run_.model);
  const OptimizerConfig& optimizer = run_.optimizer;
  json card = {{"format", 1},
               {"name", std::filesystem::path(run_.run_dir).filename().string()},
               {"status", status},
               {"command", command_},
               {"started", started_},
               {"wall_s", seconds_since(start_)},
               {"seed", run_.seed},
               {"steps", run_.steps},
               {"versions", {{"tessera", TESSERA_VERSION}}},
               {"model", to_config_json(run_.model, to_string(run_.work.precision))},
               {"parameters", {{"total", parameters.total}, {"active", parameters.active}}},
               {"work",
                {{"seq", run_.work.seq},
                 {"micro_batch", run_.work.micro_batch},
                 {"global_batch", run_.work.global_batch},
                 {"precision", to_string(run_.work.precision)},
                 {"numerics", to_string(run_.work.numerics)},
                 {"tp_blocks", run_.work.tp_blocks},
                 {"seq_chunks", run_.work.seq_chunks}}},
               {"layout", to_string(run_.layout)},
               {"processes", run_.layout.processes()},
               {"optimizer",
                {{"learning_rate", optimizer.learning_rate},
                 {"min_learning_rate", optimizer.min_learning_rate},
                 {"schedule", optimizer.schedule},
                 {"warmup_steps", optimizer.warmup_steps},
                 {"weight_decay", optimizer.weight_decay},
                 {"clip_norm", optimizer.clip_norm}}},
               {"data", data_card(run_)},
               {"machine", machine()},
               {"evaluation", evaluation_},
               {"energy_kwh", nullptr},
               {"cost_usd", nullptr}};
  if (!error.empty()) card["error"] = error;
  if (status == "finished" && run_.disk_checkpoints)
    card["checkpoint"] = fmt::format("checkpoints/step-{}", run_.steps);
  return write_file_atomically(std::filesystem::path(run_.run_dir) / "run.json", card.dump(1));
}

Status RunRecord::finish(const std::string& error) {
  TESSERA_RETURN_IF_ERROR(flush_line());
  TESSERA_RETURN_IF_ERROR(write_memory());
  TESSERA_RETURN_IF_ERROR(write_timeline());
  return write_card(error.empty() ? "finished" : "failed", error);
}

}  // namespace tessera::train
