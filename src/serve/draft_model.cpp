#include "serve/draft_model.h"

#include <algorithm>
#include <numeric>

namespace tessera::serve {

namespace {

constexpr int64_t kDraftBlock = 16;  // tokens

// Token i of prompt, answer and guesses in a row.
int64_t token_at(const std::vector<int64_t>& known, const std::vector<int64_t>& guesses, size_t i) {
  return i < known.size() ? known[i] : guesses[i - known.size()];
}

}  // namespace

Result<std::unique_ptr<DraftModel>> DraftModel::make(ServedModel model, const ServedSpec& served,
                                                     const Options& options) {
  if (model.spec().vocab != served.vocab)
    return invalid("the draft model has a vocabulary of {} tokens, the served model of {}; they must share one",
                   model.spec().vocab, served.vocab);
  if (model.spec().encoder) return invalid("the draft model is an encoder and continues no text");
  const int64_t blocks = std::max<int64_t>(options.kv_tokens / kDraftBlock, 1);
  TESSERA_ASSIGN_OR_RETURN(KvCache cache, model.make_cache(blocks, kDraftBlock));
  return std::unique_ptr<DraftModel>(new DraftModel(std::move(model), options, std::move(cache), blocks));
}

DraftModel::DraftModel(ServedModel model, const Options& options, KvCache cache, int64_t blocks)
    : model_(std::move(model)),
      options_(options),
      cache_(std::move(cache)),
      free_(static_cast<size_t>(blocks)) {
  std::iota(free_.rbegin(), free_.rend(), int64_t{0});
}

void DraftModel::release(State& state) {
  free_.insert(free_.end(), state.blocks.begin(), state.blocks.end());
  state = {};
}

bool DraftModel::make_room(State& state, int64_t tokens) {
  const int64_t needed = (tokens + kDraftBlock - 1) / kDraftBlock - std::ssize(state.blocks);
  if (needed > std::ssize(free_)) return false;
  for (int64_t i = 0; i < needed; ++i) {
    state.blocks.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void DraftModel::keep_only(const std::vector<Request>& requests) {
  for (auto it = states_.begin(); it != states_.end();) {
    auto is_it = [&](const Request& request) { return request.id == it->first; };
    if (std::ranges::any_of(requests, is_it)) {
      ++it;
      continue;
    }
    release(it->second);
    it = states_.erase(it);
  }
}

// Requests with room for all their tokens and guesses. What was guessed wrongly is forgotten.
std::vector<DraftModel::Row> DraftModel::rows_of(const std::vector<Request>& requests,
                                                 std::vector<std::vector<int64_t>>& guesses) {
  std::vector<Row> rows;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Request& request = requests[i];
    const int64_t length = std::ssize(request.tokens) + request.most;
    if (request.most < 1 || length > model_.spec().max_positions) continue;
    State& state = states_[request.id];
    const auto same = std::ranges::mismatch(state.cached, request.tokens);
    state.cached.erase(same.in1, state.cached.end());
    // The last token runs again when it is cached already: its logits are what is wanted.
    if (state.cached.size() == request.tokens.size()) state.cached.pop_back();
    if (!make_room(state, length)) {
      release(state);
      continue;
    }
    rows.push_back({.request = &request,
                    .state = &state,
                    .guesses = &guesses[i],
                    .count = std::ssize(request.tokens) - std::ssize(state.cached)});
  }
  return rows;
}

// One pass over the next tokens of all rows; who has read all of its tokens guesses one more.
Status DraftModel::run(std::vector<Row>& rows) {
  StepBatch batch;
  int64_t room = options_.max_batch_tokens;
  for (const Row& row : rows) batch.max_blocks = std::max(batch.max_blocks, std::ssize(row.state->blocks));
  std::vector<Row*> chooses;
  for (size_t r = 0; r < rows.size(); ++r) {
    Row& row = rows[r];
    State& state = *row.state;
    const int64_t count = std::min(row.count, room);
    room -= count;
    row.count -= count;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t position = std::ssize(state.cached);
      const int64_t token = token_at(row.request->tokens, *row.guesses, static_cast<size_t>(position));
      batch.tokens.push_back(token);
      batch.positions.push_back(position);
      batch.sequence.push_back(static_cast<int64_t>(r));
      batch.slot.push_back(state.blocks[static_cast<size_t>(position / kDraftBlock)] * kDraftBlock +
                           position % kDraftBlock);
      state.cached.push_back(token);
    }
    if (count > 0 && row.count == 0) {
      batch.wanted.push_back(batch.num_tokens() - 1);
      chooses.push_back(&row);
    }
    batch.block_table.insert(batch.block_table.end(), state.blocks.begin(), state.blocks.end());
    batch.block_table.resize((r + 1) * static_cast<size_t>(batch.max_blocks), 0);
  }
  TESSERA_ASSIGN_OR_RETURN(at::Tensor logits, model_.forward(batch, cache_));
  const auto vocab = static_cast<size_t>(logits.size(1));
  for (size_t i = 0; i < chooses.size(); ++i) {
    Row& row = *chooses[i];
    const std::span<const float> own(logits.const_data_ptr<float>() + i * vocab, vocab);
    const int64_t position = std::ssize(row.request->tokens) + std::ssize(*row.guesses);
    row.guesses->push_back(sample(own, row.request->sampling, position));
    row.count = 1;
  }
  return {};
}

Result<std::vector<std::vector<int64_t>>> DraftModel::guess(const std::vector<Request>& requests) {
  keep_only(requests);
  std::vector<std::vector<int64_t>> guesses(requests.size());
  std::vector<Row> rows = rows_of(requests, guesses);
  bool reading = true;  // of known tokens: once for each call, so that a step never waits for a long prompt
  while (!rows.empty()) {
    if (Status status = run(rows); !status.ok()) {
      keep_only({});  // nobody knows what the cache holds
      return status.error();
    }
    if (std::exchange(reading, false)) std::erase_if(rows, [](const Row& row) { return row.guesses->empty(); });
    std::erase_if(rows, [](const Row& row) { return std::ssize(*row.guesses) >= row.request->most; });
  }
  return guesses;
}

}  // namespace tessera::serve
