// Loss and gradients of one step of a Hugging Face model directory, in any layout, for comparison with PyTorch.
//   gradient_probe MODEL_DIR BATCH.json LAYOUT NUMERICS OUT_DIR
// BATCH.json: {"samples": [[token, ...], ...], "seq": n}; each sample is one document and its own micro-batch.
// Writes OUT_DIR/loss.json and OUT_DIR/NAME.f32 for every tensor.
#include <ATen/ops/empty.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/memory_pieces.h"
#include "checkpoint/weight_pieces.h"
#include "core/core.h"
#include "train/thread_job.h"

namespace tessera {
namespace {

using nlohmann::json;

class GivenSamples : public data::SampleSource {
 public:
  GivenSamples(std::vector<std::vector<int64_t>> samples, int64_t seq)
      : samples_(std::move(samples)), seq_(seq) {}
  int64_t seq() const override { return seq_; }
  data::Sample sample(int64_t index) const override {
    const auto& tokens = samples_[static_cast<size_t>(index) % samples_.size()];
    data::Sample sample;
    for (int64_t i = 0; i < seq_; ++i) {
      auto at = static_cast<size_t>(i);
      sample.tokens.push_back(tokens[at]);
      sample.targets.push_back(i + 1 < seq_ ? tokens[at + 1] : data::kNoTarget);
      sample.positions.push_back(i);
      sample.starts.push_back(0);
    }
    return sample;
  }

 private:
  std::vector<std::vector<int64_t>> samples_;
  int64_t seq_;
};

Status write_gradients(const ModelSpec& model, train::ThreadJob& job, const std::string& folder) {
  std::vector<Piece> pieces;
  for (int64_t rank = 0; rank < job.ranks(); ++rank)
    for (Piece& piece : job.rank(rank).gradients())
      if (piece.primary) pieces.push_back(std::move(piece));
  TESSERA_ASSIGN_OR_RETURN(auto gradients, checkpoint::MemoryPieces::copy_of(pieces));
  for (const TensorSpec& tensor : inventory(model)) {
    at::Tensor values = at::empty({tensor.elements()}, at::kFloat);
    Extent whole{std::vector<int64_t>(tensor.shape.size(), 0), tensor.shape};
    TESSERA_RETURN_IF_ERROR(gradients.read(tensor.name, StateKind::master, whole, values));
    std::ofstream file(folder + "/" + tensor.name + ".f32", std::ios::binary);
    file.write(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
    if (!file) return make_error(ErrorCode::resource_exhausted, "write the gradient of {}", tensor.name);
  }
  return {};
}

Status probe(char** arguments) {
  std::string directory = arguments[1], folder = arguments[5];
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(arguments[2]));
  json batch = json::parse(text);
  auto samples = batch["samples"].get<std::vector<std::vector<int64_t>>>();
  train::TrainerOptions options{.total_steps = 1, .keep_fingerprints = true};
  TESSERA_ASSIGN_OR_RETURN(options.model, load_model_spec(directory));
  TESSERA_ASSIGN_OR_RETURN(options.layout, parse_layout(arguments[3]));
  options.work = {.seq = batch["seq"], .micro_batch = 1, .global_batch = static_cast<int64_t>(samples.size())};
  options.work.numerics = std::string(arguments[4]) == "exact" ? Numerics::exact : Numerics::fast;
  TESSERA_ASSIGN_OR_RETURN(auto weights, checkpoint::WeightReader::open(directory));
  checkpoint::WeightPieces pieces(std::move(weights));
  GivenSamples source(samples, options.work.seq);
  TESSERA_ASSIGN_OR_RETURN(auto job, train::ThreadJob::create(options));
  double loss = 0, aux_loss = 0;
  Status ran = job->on_all([&](train::Trainer& trainer, int64_t rank) -> Status {
    TESSERA_RETURN_IF_ERROR(trainer.restore(pieces));
    TESSERA_ASSIGN_OR_RETURN(train::StepReport report, trainer.step(0, source));
    if (rank == 0) loss = report.loss, aux_loss = report.aux_loss;
    return {};
  });
  TESSERA_RETURN_IF_ERROR(ran);
  TESSERA_RETURN_IF_ERROR(write_gradients(options.model, *job, folder));
  return write_file_atomically(folder + "/loss.json", json{{"loss", loss}, {"aux_loss", aux_loss}}.dump());
}

}  // namespace
}  // namespace tessera

int main(int count, char** arguments) {
  if (count != 6)
    return std::fprintf(stderr, "usage: gradient_probe MODEL_DIR BATCH.json LAYOUT NUMERICS OUT_DIR\n"), 2;
  tessera::Status status = tessera::probe(arguments);
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  return status.ok() ? 0 : 1;
}
