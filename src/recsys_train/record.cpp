#include "recsys_train/record.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/file.h"
#include "core/machine.h"

namespace tessera::recsys_train {
namespace {

using nlohmann::json;

json number(double value) {
  return std::isfinite(value) ? json(value) : json();
}

json to_json(const Quality& quality) {
  return {{"test_auc", number(quality.auc)},
          {"test_log_loss", number(quality.log_loss)},
          {"test_normalised_entropy", number(quality.normalised_entropy)},
          {"test_calibration", number(quality.calibration)}};
}

// Seconds of the stages of a step; `stage`: where TensorBoard has the samples per second of one.
struct Seconds {
  const char* name;
  double StepReport::*field;
  const char* stage;
};
constexpr Seconds kSeconds[] = {{"load_s", &StepReport::load_s, "stage/load_samples_per_s"},
                                {"gate_s", &StepReport::gate_s, nullptr},
                                {"look_up_s", &StepReport::look_up_s, "stage/look_up_samples_per_s"},
                                {"wait_s", &StepReport::wait_s, nullptr},
                                {"dense_s", &StepReport::dense_s, "stage/dense_samples_per_s"},
                                {"reduce_s", &StepReport::reduce_s, nullptr},
                                {"update_s", &StepReport::update_s, "stage/update_samples_per_s"}};

}  // namespace

RunRecord::RunRecord(std::filesystem::path folder, std::string command, std::string settings,
                     int64_t record_every)
    : folder_(std::move(folder)),
      command_(std::move(command)),
      settings_(std::move(settings)),
      record_every_(record_every) {}
RunRecord::~RunRecord() = default;

Result<std::unique_ptr<RunRecord>> RunRecord::open(const std::filesystem::path& folder, std::string command,
                                                   std::string settings, int64_t record_every) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) return system_error("cannot make the run directory", folder, failure.value());
  std::unique_ptr<RunRecord> record(
      new RunRecord(folder, std::move(command), std::move(settings), std::max<int64_t>(1, record_every)));
  TESSERA_ASSIGN_OR_RETURN(record->board_, TensorBoardWriter::open(folder / "tensorboard"));
  TESSERA_RETURN_IF_ERROR(record->write_card("running", ""));
  return record;
}

Status RunRecord::step(const StepReport& step) {
  ++steps_;
  rows_ += step.rows;
  loss_ += step.loss * static_cast<double>(step.rows);
  for (auto seconds : kSeconds) sums_.*seconds.field += step.*seconds.field;
  last_step_ = step.step;
  return steps_ == record_every_ ? write_line(step.step) : Status();
}

// Of the rows asked for since the last line, those that workers had.
Status RunRecord::add_traffic(int64_t step, json& line) {
  auto now = traffic ? traffic() : Result<Traffic>(Traffic());
  if (!now || now->cache.gets <= cache_.gets) return {};  // a worker that was replaced counts anew
  const double rate =
      static_cast<double>(now->cache.hits - cache_.hits) / static_cast<double>(now->cache.gets - cache_.gets);
  cache_ = now->cache;
  line["cache_hit_rate"] = rate;
  return board_->scalar("cache/hit_rate", rate, step);
}

Status RunRecord::write_line(int64_t step) {
  const double samples = static_cast<double>(rows_);
  const double seconds = seconds_since(line_start_), loss = loss_ / static_cast<double>(rows_);
  const double rate = static_cast<double>(rows_) / seconds;
  json line = {{"step", step},     {"time", unix_time()}, {"loss", number(loss)},
               {"samples", rows_}, {"seconds", seconds},  {"samples_per_s", rate}};
  for (auto part : kSeconds) line[part.name] = sums_.*part.field;
  TESSERA_RETURN_IF_ERROR(add_traffic(step, line));
  std::ofstream file(folder_ / "metrics.jsonl", std::ios::app);
  file << line.dump() << "\n" << std::flush;
  if (!file.good()) return system_error("cannot write", folder_ / "metrics.jsonl", errno);
  steps_ = rows_ = 0;
  loss_ = 0;
  for (auto part : kSeconds)
    if (part.stage != nullptr && sums_.*part.field > 0)
      TESSERA_RETURN_IF_ERROR(board_->scalar(part.stage, samples / sums_.*part.field, step));
  sums_ = {};
  line_start_ = Clock::now();
  TESSERA_RETURN_IF_ERROR(board_->scalar("train/loss", loss, step));
  return board_->scalar("train/samples_per_s", rate, step);
}

Status RunRecord::test(int64_t step, const Quality& quality) {
  quality_ = quality;
  if (steps_ > 0) TESSERA_RETURN_IF_ERROR(write_line(last_step_));
  line_start_ = Clock::now();  // the time of the test is not that of training
  json test = to_json(quality);
  test["step"] = step;
  tests_.push_back(std::move(test));
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/auc", quality.auc, step));
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/log_loss", quality.log_loss, step));
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/normalised_entropy", quality.normalised_entropy, step));
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/calibration", quality.calibration, step));
  return board_->flush();
}

Status RunRecord::finish(const std::string& error, json result) {
  if (steps_ > 0) TESSERA_RETURN_IF_ERROR(write_line(last_step_));
  TESSERA_RETURN_IF_ERROR(board_->flush());
  if (result.is_object()) {
    result["tests"] = tests_;
    TESSERA_RETURN_IF_ERROR(write_file_atomically(folder_ / "recsys.json", result.dump(2) + "\n"));
  }
  return write_card(error.empty() ? "finished" : "failed", error);
}

Status RunRecord::write_card(const std::string& status, const std::string& error) const {
  Machine machine = this_machine();
  json card = {{"format", 1},
               {"kind", "recommender"},
               {"name", folder_.filename().string()},
               {"status", status},
               {"command", command_},
               {"wall_s", seconds_since(start_)},
               {"settings", settings_},
               {"machine", {{"host", machine.host}, {"cpu", machine.processor}, {"cores", machine.cores}}}};
  if (quality_.rows > 0) card["evaluation"] = to_json(quality_);
  if (!error.empty()) card["error"] = error;
  return write_file_atomically(folder_ / "run.json",
                               card.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace tessera::recsys_train
