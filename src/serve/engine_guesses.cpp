// Guesses of next tokens, which a step checks: by repetitions, by a draft model, or by the model's own
// multi-token-prediction layer.
#include "core/log.h"
#include "serve/engine.h"

namespace tessera::serve {

using batching::StepEntry;

void Engine::guess() {
  for (auto& [id, answer] : answers_) {
    if (!answer->first_step) continue;  // it waits, or its prompt has yet to run
    const int64_t most = answer->guess_length.next();
    if (model_.has_mtp())  // their values are found when their places are known
      answer->guesses.assign(static_cast<size_t>(most), answer->tokens().back());
    else
      answer->guesses = repeat_guess(answer->tokens(), most);
    scheduler_.propose(id, std::ssize(answer->guesses));
  }
}

// By the multi-token-prediction layer, into the places that the step has for guesses.
void Engine::guess_ahead(Work& work) {
  Share& share = work.shares[0];
  StepBatch& batch = work.batches[0];
  std::vector<MtpStart> starts;
  std::vector<std::pair<size_t, int64_t>> places;  // entry, row of its first token
  int64_t row = 0;
  for (size_t i = 0; i < share.answers.size(); row += share.step.entries[i++].count) {
    const StepEntry& entry = share.step.entries[i];
    if (entry.first == 0) continue;
    const Answer& answer = *share.answers[i];
    const auto blocks = batch.block_table.begin() + static_cast<int64_t>(i) * batch.max_blocks;
    starts.push_back({.token = batch.tokens[static_cast<size_t>(row)],
                      .position = entry.first,
                      .hidden = answer.hidden_until == entry.first ? answer.hidden : at::Tensor(),
                      .blocks = {blocks, blocks + batch.max_blocks},
                      .guesses = entry.drafts,
                      .sampling = answer.request().sampling});
    places.emplace_back(i, row);
  }
  if (starts.empty()) return;
  end_gap();
  auto guesses = runner_.guess_ahead(starts);
  if (!guesses) return log(LogLevel::warn, "no guesses: {}", guesses.error().message);
  for (size_t s = 0; s < places.size(); ++s) {
    const auto [i, first] = places[s];
    const std::vector<int64_t>& own = (*guesses)[s];
    std::ranges::copy(own, share.answers[i]->guesses.begin());
    std::ranges::copy(own, batch.tokens.begin() + first + 1);
  }
}

// The next step of the request begins behind the last token that is known to be right.
void Engine::keep_hidden(const StepEntry& entry, Answer& answer, int64_t row, int64_t right) const {
  const int64_t last = entry.count - entry.drafts - 1 + right;
  answer.hidden = runner_.hidden().select(0, row + last).clone();
  answer.hidden_until = entry.first + last + 1;
}

// The lock is open while the draft model runs: no other thread adds tokens to answers.
void Engine::draft(std::unique_lock<std::mutex>& lock) {
  std::vector<DraftModel::Request> requests;
  for (auto& [id, answer] : answers_) {
    answer->guesses.clear();
    if (!answer->first_step) continue;
    scheduler_.propose(id, 0);
    requests.push_back({.id = id,
                        .tokens = answer->tokens(),
                        .most = answer->guess_length.next(),
                        .sampling = answer->request().sampling});
  }
  if (requests.empty()) return;
  lock.unlock();
  end_gap();
  auto guesses = options_.draft->guess(requests);
  lock.lock();
  if (!guesses) return log(LogLevel::warn, "no guesses: draft model: {}", guesses.error().message);
  for (size_t i = 0; i < requests.size(); ++i) {
    auto found = answers_.find(requests[i].id);
    if (found == answers_.end()) continue;  // cancelled meanwhile
    found->second->guesses = std::move((*guesses)[i]);
    scheduler_.propose(requests[i].id, std::ssize(found->second->guesses));
  }
}

}  // namespace tessera::serve
