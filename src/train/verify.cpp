#include "train/verify.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "checkpoint/memory_pieces.h"
#include "train/thread_job.h"

namespace tessera::train {
namespace {

struct Record {
  std::vector<StepReport> reports;                     // of rank 0
  std::vector<std::vector<Fingerprint>> fingerprints;  // by step
  std::string hash;
  uint64_t bytes_sent = 0;
  int64_t gradient_bytes_peak = 0;
};

TrainerOptions with_layout(TrainerOptions options, const Layout& layout, int64_t steps) {
  options.layout = layout;
  options.total_steps = steps;
  options.keep_fingerprints = true;
  return options;
}

Result<Record> run_exact(TrainerOptions options, int64_t steps, const data::SampleSource& source,
                         const std::function<void()>& progress) {
  TESSERA_ASSIGN_OR_RETURN(auto job, ThreadJob::create(std::move(options)));
  Record record;
  std::vector<uint64_t> bytes(static_cast<size_t>(job->ranks()), 0);
  TESSERA_RETURN_IF_ERROR(job->on_all([&](Trainer& trainer, int64_t rank) -> Status {
    for (int64_t step = 0; step < steps; ++step) {
      TESSERA_ASSIGN_OR_RETURN(StepReport report, trainer.step(step, source));
      bytes[static_cast<size_t>(rank)] += report.bytes_sent;
      if (rank != 0) continue;
      record.reports.push_back(std::move(report));
      record.fingerprints.push_back(trainer.fingerprints());
      progress();
    }
    TESSERA_ASSIGN_OR_RETURN(std::string hash, trainer.weights_hash());
    if (rank == 0) record.hash = hash;
    return {};
  }));
  for (int64_t rank = 0; rank < job->ranks(); ++rank) {
    record.bytes_sent += bytes[static_cast<size_t>(rank)];
    record.gradient_bytes_peak = std::max(record.gradient_bytes_peak, job->rank(rank).gradient_bytes_peak());
  }
  return record;
}

std::optional<Difference> first_difference(const Record& a, const Record& b) {
  for (size_t step = 0; step < a.fingerprints.size(); ++step)
    for (size_t i = 0; i < a.fingerprints[step].size(); ++i) {
      const Fingerprint& one = a.fingerprints[step][i];
      if (one.hash != b.fingerprints[step][i].hash)
        return Difference{static_cast<int64_t>(step), one.operation, one.tensor};
    }
  return std::nullopt;
}

std::vector<double> losses(const std::vector<StepReport>& reports) {
  std::vector<double> values;
  for (const StepReport& report : reports) values.push_back(report.loss);
  return values;
}

// Copies of the pieces of all ranks, as a reader.
Result<checkpoint::MemoryPieces> collect(ThreadJob& job, bool gradients) {
  std::vector<Piece> pieces;
  for (int64_t rank = 0; rank < job.ranks(); ++rank)
    for (Piece& piece : gradients ? job.rank(rank).gradients() : job.rank(rank).state())
      if (piece.primary) pieces.push_back(std::move(piece));
  return checkpoint::MemoryPieces::copy_of(pieces);
}

// Frobenius norm of a - b; b may be undefined.
double distance(const at::Tensor& a, const at::Tensor& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    double d =
        a.const_data_ptr<float>()[i] - (b.defined() ? static_cast<double>(b.const_data_ptr<float>()[i]) : 0.0);
    sum += d * d;
  }
  return std::sqrt(sum);
}

// Largest relative difference of a tensor's gradient. The scale is the tensor's own norm, but at least 1e-3 of
// the largest: a gradient that is nearly zero is compared with its neighbours.
Status compare_gradients(const ModelSpec& model, checkpoint::MemoryPieces& reference,
                         checkpoint::MemoryPieces& other, FastComparison& comparison) {
  struct Row {
    std::string name;
    double difference, norm;
  };
  std::vector<Row> table;
  double largest = 0;
  for (const TensorSpec& tensor : inventory(model)) {
    Extent whole{std::vector<int64_t>(tensor.shape.size(), 0), tensor.shape};
    at::Tensor a = at::empty({tensor.elements()}), b = at::empty({tensor.elements()});
    TESSERA_RETURN_IF_ERROR(reference.read(tensor.name, StateKind::master, whole, a));
    TESSERA_RETURN_IF_ERROR(other.read(tensor.name, StateKind::master, whole, b));
    table.push_back({tensor.name, distance(a, b), distance(a, at::Tensor())});
    largest = std::max(largest, table.back().norm);
  }
  for (const Row& row : table) {
    double relative = row.difference / std::max(row.norm, 1e-3 * largest);
    if (relative < comparison.gradient_difference) continue;
    comparison.gradient_difference = relative;
    comparison.worst_tensor = row.name;
  }
  return {};
}

Result<VerifyResult> verify_fast(const TrainerOptions& options, const Layout& layout, const Layout& against,
                                 int64_t steps, const data::SampleSource& source,
                                 const std::function<void()>& progress) {
  TESSERA_ASSIGN_OR_RETURN(auto reference, ThreadJob::create(with_layout(options, layout, steps)));
  TESSERA_ASSIGN_OR_RETURN(auto other, ThreadJob::create(with_layout(options, against, steps)));
  VerifyResult result{.equal = true, .bound = fast_bound(options.model, options.work)};
  for (int64_t step = 0; step < steps; ++step) {
    TESSERA_ASSIGN_OR_RETURN(checkpoint::MemoryPieces state, collect(*reference, false));
    FastComparison comparison{.step = step};
    std::mutex mutex;
    auto run = [&](ThreadJob& job, bool restore, double& loss) {
      return job.on_all([&](Trainer& trainer, int64_t rank) -> Status {
        if (restore) TESSERA_RETURN_IF_ERROR(trainer.restore(state));
        TESSERA_ASSIGN_OR_RETURN(StepReport report, trainer.step(step, source));
        std::lock_guard lock(mutex);
        if (restore) result.bytes_sent += report.bytes_sent;
        if (rank == 0) loss = report.loss;
        return {};
      });
    };
    double loss = 0, loss_against = 0;
    TESSERA_RETURN_IF_ERROR(run(*reference, false, loss));
    progress();
    TESSERA_RETURN_IF_ERROR(run(*other, true, loss_against));
    progress();
    comparison.loss = loss;
    comparison.loss_difference = std::abs(loss_against - loss) / loss;
    TESSERA_ASSIGN_OR_RETURN(checkpoint::MemoryPieces a, collect(*reference, true));
    TESSERA_ASSIGN_OR_RETURN(checkpoint::MemoryPieces b, collect(*other, true));
    TESSERA_RETURN_IF_ERROR(compare_gradients(options.model, a, b, comparison));
    bool within = comparison.loss_difference <= result.bound && comparison.gradient_difference <= result.bound;
    if (!within && result.equal)
      result.first_difference = Difference{step, "gradient", comparison.worst_tensor};
    result.equal &= within;
    result.losses.push_back(loss);
    result.losses_against.push_back(loss_against);
    result.steps.push_back(comparison);
  }
  for (int64_t rank = 0; rank < other->ranks(); ++rank)
    result.gradient_bytes_peak = std::max(result.gradient_bytes_peak, other->rank(rank).gradient_bytes_peak());
  return result;
}

}  // namespace

double fast_bound(const ModelSpec& model, const Work& work) {
  double unit = work.precision == Precision::bf16 ? 0x1p-9 : 0x1p-24;
  auto longest = static_cast<double>(std::max({model.hidden, model.ffn, model.moe.ffn, model.vocab, work.seq}));
  // Rounded intermediate tensors on the way through a block, forward and backward; errors of sums grow like a
  // random walk.
  double roundings = 2.0 * 12.0 * static_cast<double>(model.layers) + 8;
  double sums = work.precision == Precision::bf16 ? 1 : std::sqrt(longest);
  return unit * roundings * (1 + sums);
}

Result<VerifyResult> verify(const TrainerOptions& options, const Layout& layout, const Layout& against,
                            int64_t steps, const data::SampleSource& source,
                            const std::function<void(int64_t, int64_t)>& progress) {
  int64_t done = 0;
  auto count = [&] {
    if (progress) progress(++done, 2 * steps);
  };
  if (options.work.numerics == Numerics::fast)
    return verify_fast(options, layout, against, steps, source, count);
  TESSERA_ASSIGN_OR_RETURN(Record a, run_exact(with_layout(options, layout, steps), steps, source, count));
  TESSERA_ASSIGN_OR_RETURN(Record b, run_exact(with_layout(options, against, steps), steps, source, count));
  VerifyResult result;
  result.first_difference = first_difference(a, b);
  result.equal = !result.first_difference && a.hash == b.hash;
  result.hash = a.hash;
  result.hash_against = b.hash;
  result.losses = losses(a.reports);
  result.losses_against = losses(b.reports);
  result.bytes_sent = b.bytes_sent;
  result.bytes_sent_reference = a.bytes_sent;
  result.gradient_bytes_peak = b.gradient_bytes_peak;
  return result;
}

}  // namespace tessera::train
