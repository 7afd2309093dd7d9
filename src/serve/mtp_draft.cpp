#include "serve/mtp_draft.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace tessera::serve {

namespace {

// One token of a sequence on its way through the layer.
struct Row {
  const MtpStart* start;
  std::vector<int64_t>* guesses;
  at::Tensor hidden;

  int64_t token() const { return guesses->empty() ? start->token : guesses->back(); }
  int64_t position() const { return start->position + std::ssize(*guesses); }
  bool done() const { return std::ssize(*guesses) >= start->guesses; }
};

StepBatch batch_of(const std::vector<Row>& rows, int64_t block_tokens) {
  StepBatch batch;
  for (const Row& row : rows) batch.max_blocks = std::max(batch.max_blocks, std::ssize(row.start->blocks));
  for (const Row& row : rows) {
    if (!row.done()) batch.wanted.push_back(batch.num_tokens());
    const int64_t token = row.token();
    add_sequence(batch, {.tokens = {&token, 1}, .first = row.position(), .blocks = row.start->blocks},
                 block_tokens);
  }
  return batch;
}

Status run(const ServedModel& model, KvCache& cache, std::vector<Row>& rows) {
  const StepBatch batch = batch_of(rows, cache.block_tokens);
  std::vector<at::Tensor> hidden;
  for (const Row& row : rows) hidden.push_back(row.hidden);
  TESSERA_ASSIGN_OR_RETURN(PassRows passed, model.predict_ahead(batch, at::stack(hidden), cache));
  const auto vocab = static_cast<size_t>(model.spec().vocab);
  for (size_t i = 0; i < batch.wanted.size(); ++i) {
    Row& row = rows[static_cast<size_t>(batch.wanted[i])];
    const std::span<const float> logits(passed.logits.const_data_ptr<float>() + i * vocab, vocab);
    row.hidden = passed.hidden.select(0, batch.wanted[i]);
    row.guesses->push_back(sample(logits, row.start->sampling, row.position() + 1));
  }
  return {};
}

}  // namespace

Result<std::vector<std::vector<int64_t>>> guess_ahead(const ServedModel& model, KvCache& cache,
                                                      std::span<const MtpStart> starts) {
  std::vector<std::vector<int64_t>> guesses(starts.size());
  const at::Tensor unknown = at::zeros({model.spec().hidden}, at::TensorOptions().dtype(model.dtype()));
  std::vector<Row> rows;
  for (size_t i = 0; i < starts.size(); ++i)
    rows.push_back({.start = &starts[i],
                    .guesses = &guesses[i],
                    .hidden = starts[i].hidden.defined() ? starts[i].hidden : unknown});
  while (!rows.empty()) {
    TESSERA_RETURN_IF_ERROR(run(model, cache, rows));
    std::erase_if(rows, [](const Row& row) { return row.done(); });
  }
  return guesses;
}

}  // namespace tessera::serve
