#include "serve/embedding_engine.h"

#include <algorithm>
#include <cmath>

namespace tessera::serve {

namespace {

constexpr int64_t kBlockTokens = 16;

int64_t token_blocks(int64_t tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens;
}

void to_length_one(std::vector<float>& vector) {
  double squares = 0;
  for (float x : vector) squares += static_cast<double>(x) * x;
  const double length = std::sqrt(squares);
  if (length == 0) return;
  for (float& x : vector) x = static_cast<float>(x / length);
}

}  // namespace

struct EmbeddingEngine::Work {
  int64_t id = 0;
  EmbeddingJob job;
  std::vector<std::vector<float>> vectors;
  size_t missing = 0;
  bool over = false;  // answered or cancelled
};

Result<Pooling> parse_pooling(const std::string& text) {
  if (text == "mean") return Pooling::mean;
  if (text == "cls") return Pooling::cls;
  if (text == "last") return Pooling::last;
  return invalid("unknown pooling '{}'; use mean, cls or last", text);
}

Result<std::unique_ptr<EmbeddingEngine>> EmbeddingEngine::start(const ServedModel& model,
                                                                const EmbeddingOptions& options) {
  // A step is never longer than its budget or one sequence; each sequence begins a block.
  const int64_t tokens = std::max(options.max_batch_tokens, model.spec().max_positions);
  TESSERA_ASSIGN_OR_RETURN(KvCache cache,
                           model.make_cache(token_blocks(tokens) + options.max_batch_tokens, kBlockTokens));
  std::unique_ptr<EmbeddingEngine> engine(new EmbeddingEngine(model, options, std::move(cache)));
  engine->thread_ = std::thread([raw = engine.get()] { raw->run(); });
  return engine;
}

EmbeddingEngine::~EmbeddingEngine() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Status EmbeddingEngine::check(const EmbeddingJob& job) const {
  for (const auto& sequence : job.sequences) {
    if (sequence.empty()) return invalid("an input is empty");
    if (std::ssize(sequence) > max_length())
      return invalid("an input of {} tokens is longer than the {} that this model reads", sequence.size(),
                     max_length());
    for (int64_t token : sequence)
      if (token < 0 || token >= model_.spec().vocab)
        return invalid("token {} is outside the vocabulary of {} tokens", token, model_.spec().vocab);
  }
  if (job.dimensions > width())
    return invalid("dimensions {} is more than the {} of this model", job.dimensions, width());
  return {};
}

Result<int64_t> EmbeddingEngine::submit(EmbeddingJob job) {
  TESSERA_RETURN_IF_ERROR(check(job));
  std::lock_guard lock(mutex_);
  const int64_t waiting = std::ssize(queue_), more = std::ssize(job.sequences);
  if (waiting > 0 && waiting + more > options_.max_waiting)
    return make_error(ErrorCode::resource_exhausted, "{} sequences wait, and no more than {} may", waiting,
                      options_.max_waiting);
  auto work = std::make_shared<Work>();
  work->id = next_id_++;
  work->missing = job.sequences.size();
  work->vectors.resize(job.sequences.size());
  work->job = std::move(job);
  for (size_t i = 0; i < work->missing; ++i) queue_.push_back({work, i});
  ++gauges_.calls;
  changed_.notify_all();
  return work->id;
}

void EmbeddingEngine::cancel(int64_t id) {
  std::lock_guard lock(mutex_);
  for (const Entry& entry : queue_)
    if (entry.work->id == id) entry.work->over = true;
  std::erase_if(queue_, [](const Entry& entry) { return entry.work->over; });
}

EmbeddingGauges EmbeddingEngine::gauges() const {
  std::lock_guard lock(mutex_);
  EmbeddingGauges gauges = gauges_;
  gauges.waiting = std::ssize(queue_);
  return gauges;
}

// Sequences from the front of the queue while they fit; empty: the engine stops.
std::vector<EmbeddingEngine::Entry> EmbeddingEngine::next_step() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
  std::vector<Entry> step;
  int64_t tokens = 0;
  while (!stopping_ && !queue_.empty()) {
    const Entry& next = queue_.front();
    const int64_t length = std::ssize(next.work->job.sequences[next.index]);
    if (!step.empty() && tokens + length > options_.max_batch_tokens) break;
    tokens += length;
    step.push_back(next);
    queue_.pop_front();
  }
  gauges_.steps += step.empty() ? 0 : 1;
  gauges_.sequences += std::ssize(step);
  gauges_.tokens += tokens;
  return step;
}

StepBatch EmbeddingEngine::batch_of(const std::vector<Entry>& step) const {
  StepBatch batch;
  for (const Entry& entry : step)
    batch.max_blocks =
        std::max(batch.max_blocks, token_blocks(std::ssize(entry.work->job.sequences[entry.index])));
  int64_t block = 0;
  for (size_t s = 0; s < step.size(); ++s) {
    const auto& tokens = step[s].work->job.sequences[step[s].index];
    for (size_t i = 0; i < tokens.size(); ++i) {
      batch.tokens.push_back(tokens[i]);
      batch.positions.push_back(static_cast<int64_t>(i));
      batch.sequence.push_back(static_cast<int64_t>(s));
      batch.slot.push_back(block * kBlockTokens + static_cast<int64_t>(i));
    }
    const int64_t own = token_blocks(std::ssize(tokens));
    for (int64_t i = 0; i < batch.max_blocks; ++i) batch.block_table.push_back(i < own ? block + i : 0);
    block += own;
  }
  return batch;
}

std::vector<float> EmbeddingEngine::pooled(const float* rows, int64_t count, int64_t dimensions) const {
  const int64_t width = this->width();
  std::vector<float> vector(static_cast<size_t>(width));
  if (options_.pooling == Pooling::mean) {
    for (int64_t t = 0; t < count; ++t)
      for (int64_t i = 0; i < width; ++i) vector[static_cast<size_t>(i)] += rows[t * width + i];
    for (float& x : vector) x /= static_cast<float>(count);
  } else {
    const int64_t row = options_.pooling == Pooling::cls ? 0 : count - 1;
    std::copy_n(rows + row * width, width, vector.begin());
  }
  if (dimensions > 0) vector.resize(static_cast<size_t>(dimensions));
  if (options_.normalize) to_length_one(vector);
  return vector;
}

// Fills the vectors of one step.
Status EmbeddingEngine::compute(const std::vector<Entry>& step) {
  TESSERA_ASSIGN_OR_RETURN(at::Tensor hidden, model_.encode(batch_of(step), cache_));
  hidden = hidden.to(at::kFloat).contiguous();
  const float* rows = hidden.const_data_ptr<float>();
  for (const Entry& entry : step) {
    const int64_t count = std::ssize(entry.work->job.sequences[entry.index]);
    entry.work->vectors[entry.index] = pooled(rows, count, entry.work->job.dimensions);
    rows += count * width();
  }
  return {};
}

void EmbeddingEngine::run() {
  while (true) {
    const std::vector<Entry> step = next_step();
    if (step.empty()) break;
    const Status status = compute(step);
    for (const Entry& entry : step) {
      Work& work = *entry.work;
      {
        std::lock_guard lock(mutex_);
        if (work.over || (status.ok() && --work.missing > 0)) continue;
        work.over = true;
        std::erase_if(queue_, [](const Entry& waiting) { return waiting.work->over; });
      }
      if (status.ok())
        work.job.done(std::move(work.vectors));
      else
        work.job.done(status.error());
    }
  }
  for (const Entry& entry : queue_)
    if (!std::exchange(entry.work->over, true))
      entry.work->job.done(make_error(ErrorCode::unavailable, "the server stops"));
}

}  // namespace tessera::serve
