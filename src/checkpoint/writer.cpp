#include "checkpoint/writer.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "checkpoint/agreement.h"
#include "checkpoint/builder.h"
#include "checkpoint/directory.h"
#include "checkpoint/guard.h"
#include "checkpoint/memory_pieces.h"
#include "core/clock.h"
#include "core/file.h"

namespace tessera::checkpoint {
namespace {

std::span<const float> values_of(const Piece& piece) {
  return {piece.values.const_data_ptr<float>(), static_cast<size_t>(piece.box.elements())};
}

// Copies into the memory of an earlier copy when it has the size.
void copy_values(const Piece& from, Piece& to) {
  at::Tensor memory = std::move(to.values);
  to = from;
  bool fits = memory.defined() && memory.numel() == from.values.numel();
  to.values = fits ? memory : at::empty({from.values.numel()}, at::kFloat);
  if (from.values.numel() == 0) return;
  std::memcpy(to.values.mutable_data_ptr(), from.values.const_data_ptr(), values_of(from).size_bytes());
}

bool is_bf16(const TrainingRecord& record) {
  return record.work.precision == Precision::bf16;
}

Result<TextFiles> side_files(const WriterOptions& options, const TrainingRecord& record) {
  TextFiles texts;
  const char* dtype = is_bf16(record) ? "bfloat16" : "float32";
  texts["config.json"] =
      options.config_json.empty() ? to_config_json(options.model, dtype).dump(2) + "\n" : options.config_json;
  TESSERA_ASSIGN_OR_RETURN(texts[kTrainingFile], to_text(record));
  for (const std::filesystem::path& path : options.copies) {
    TESSERA_ASSIGN_OR_RETURN(texts[path.filename().string()], read_file(path));
  }
  return texts;
}

}  // namespace

CheckpointWriter::CheckpointWriter(WriterOptions options, std::unique_ptr<Group> group)
    : options_(std::move(options)), group_(std::move(group)) {
  group_->set_timeout(options_.timeout_s);
}

CheckpointWriter::~CheckpointWriter() {
  join();
}

void CheckpointWriter::join() {
  if (thread_.joinable()) thread_.join();
}

Status CheckpointWriter::start(const TrainingRecord& record, std::span<const Piece> pieces) {
  auto begin = Clock::now();
  join();
  Status before;
  if (!reported_ && last_ && !last_->ok()) before = last_->error();
  record_ = record;
  copied_ = guarded("copy of the state", [&] { return copy_pieces(pieces); });
  copy_s_ = seconds_since(begin);
  last_.reset();
  reported_ = false;
  running_ = true;
  Status launched = guarded("thread of a save", [this]() -> Status {
    thread_ = std::thread([this] { run(); });
    return {};
  });
  if (!launched.ok()) {
    running_ = false;
    last_ = launched.error();
  }
  return before;
}

Status CheckpointWriter::copy_pieces(std::span<const Piece> pieces) {
  size_t count = 0;
  for (const Piece& piece : pieces) {
    if (!piece.primary) continue;
    TESSERA_RETURN_IF_ERROR(check_piece(piece));
    if (count == staged_.size()) staged_.emplace_back();
    copy_values(piece, staged_[count++]);
  }
  staged_.resize(count);
  return {};
}

std::optional<Result<SaveReport>> CheckpointWriter::poll() {
  if (running_ || !last_) return std::nullopt;
  reported_ = true;
  return last_;
}

Result<SaveReport> CheckpointWriter::wait() {
  join();
  if (!last_) return invalid("no save was started");
  reported_ = true;
  return *last_;
}

void CheckpointWriter::run() {
  last_ = guarded("save", [this] { return save(); });
  running_ = false;
}

Result<SaveReport> CheckpointWriter::save() {
  auto begin = Clock::now();
  SaveReport report{record_.step, step_directory(options_.directory, record_.step), copy_s_};
  TESSERA_ASSIGN_OR_RETURN(std::string name, share_text(*group_, temporary_name(record_.step)));
  std::filesystem::path temporary = options_.directory / name;
  FilePlanOptions plan_options{.working = is_bf16(record_) ? at::kBFloat16 : at::kFloat,
                               .max_file_bytes = options_.max_file_bytes};
  TESSERA_ASSIGN_OR_RETURN(FilePlan plan, plan_files(inventory(options_.model), plan_options));
  Status status = write_into(temporary, plan, report.bytes);
  report.write_s = seconds_since(begin);
  if (status.ok()) return report;
  std::error_code ignored;
  if (group_->rank() == 0) std::filesystem::remove_all(temporary, ignored);
  return status.error().within(fmt::format("save of step {} in {}", record_.step, options_.directory.string()));
}

Status CheckpointWriter::write_into(const std::filesystem::path& temporary, const FilePlan& plan,
                                    int64_t& bytes) {
  Status mine = copied_;
  if (mine.ok() && group_->rank() == 0) {
    remove_leftovers(options_.directory);
    mine = create_files(temporary, plan);
  }
  TESSERA_RETURN_IF_ERROR(agree(*group_, mine));
  ExtentWriter writer(temporary, plan, options_.extent_bytes);
  TESSERA_RETURN_IF_ERROR(agree(*group_, guarded("write", [&] { return write_pieces(writer); })));
  bytes = writer.bytes();
  TESSERA_ASSIGN_OR_RETURN(auto texts, gather_texts(*group_, to_text(writer.written())));
  if (group_->rank() == 0) mine = guarded("publish", [&] { return publish(temporary, plan, texts); });
  return agree(*group_, mine);
}

Status CheckpointWriter::write_pieces(ExtentWriter& writer) const {
  for (const Piece& piece : staged_)
    TESSERA_RETURN_IF_ERROR(writer.write(piece.tensor, piece.kind, piece.box, values_of(piece)));
  return writer.sync();
}

Status CheckpointWriter::publish(const std::filesystem::path& temporary, const FilePlan& plan,
                                 const std::vector<std::string>& written) const {
  std::vector<WrittenExtent> all;
  for (const std::string& text : written) {
    TESSERA_ASSIGN_OR_RETURN(auto extents, parse_written(text));
    all.insert(all.end(), extents.begin(), extents.end());
  }
  TESSERA_ASSIGN_OR_RETURN(TextFiles texts, side_files(options_, record_));
  TESSERA_RETURN_IF_ERROR(finish_files(temporary, plan, all, record_.step, std::move(texts)));
  TESSERA_RETURN_IF_ERROR(publish_directory(temporary, step_directory(options_.directory, record_.step)));
  remove_old(options_.directory, record_.step, options_.keep);
  return {};
}

}  // namespace tessera::checkpoint
