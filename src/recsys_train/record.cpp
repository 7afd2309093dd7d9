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
  wait_s_ += step.wait_s;
  dense_s_ += step.dense_s;
  reduce_s_ += step.reduce_s;
  last_step_ = step.step;
  return steps_ == record_every_ ? write_line(step.step) : Status();
}

Status RunRecord::write_line(int64_t step) {
  const double seconds = seconds_since(line_start_), loss = loss_ / static_cast<double>(rows_);
  const double rate = static_cast<double>(rows_) / seconds;
  json line = {{"step", step},      {"time", unix_time()}, {"loss", number(loss)},
               {"samples", rows_},  {"seconds", seconds},  {"samples_per_s", rate},
               {"wait_s", wait_s_}, {"dense_s", dense_s_}, {"reduce_s", reduce_s_}};
  std::ofstream file(folder_ / "metrics.jsonl", std::ios::app);
  file << line.dump() << "\n" << std::flush;
  if (!file.good()) return system_error("cannot write", folder_ / "metrics.jsonl", errno);
  steps_ = rows_ = 0;
  loss_ = wait_s_ = dense_s_ = reduce_s_ = 0;
  line_start_ = Clock::now();
  TESSERA_RETURN_IF_ERROR(board_->scalar("train/loss", loss, step));
  return board_->scalar("train/samples_per_s", rate, step);
}

Status RunRecord::test(int64_t step, const Quality& quality) {
  quality_ = quality;
  line_start_ = Clock::now();  // the time of the test is not that of training
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/auc", quality.auc, step));
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/log_loss", quality.log_loss, step));
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/normalised_entropy", quality.normalised_entropy, step));
  TESSERA_RETURN_IF_ERROR(board_->scalar("test/calibration", quality.calibration, step));
  return board_->flush();
}

Status RunRecord::finish(const std::string& error) {
  if (steps_ > 0) TESSERA_RETURN_IF_ERROR(write_line(last_step_));
  TESSERA_RETURN_IF_ERROR(board_->flush());
  return write_card(error.empty() ? "finished" : "failed", error);
}

Status RunRecord::write_card(const std::string& status, const std::string& error) const {
  Machine machine = this_machine();
  json card = {{"format", 1},
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
