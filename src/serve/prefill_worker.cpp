#include "serve/prefill_worker.h"

namespace tessera::serve {

namespace {

class PrefillWorker {
 public:
  PrefillWorker(StepRunner& runner, const batching::SchedulerOptions& scheduling, Group& decoder)
      : runner_(runner), scheduler_(scheduling), decoder_(decoder) {}

  Status work(const PrefillJob& job) {
    const auto tokens = std::ssize(job.tokens);
    constexpr batching::RequestId kOnly = 1;
    TESSERA_RETURN_IF_ERROR(scheduler_.submit(
        {.id = kOnly, .prompt_tokens = tokens, .max_length = tokens, .tokens = job.tokens, .salt = job.salt}));
    Status done;
    for (int64_t sent = 0; done.ok() && sent < tokens / runner_.block_tokens();) done = step(job, sent);
    scheduler_.finish(kOnly);
    return done;
  }

 private:
  // One chunk; sends the blocks that are complete with it.
  Status step(const PrefillJob& job, int64_t& sent) {
    const batching::Step step = scheduler_.next_step();
    const batching::StepEntry entry = step.entries.at(0);
    const auto blocks = scheduler_.blocks_of(entry.id);
    std::vector<StepBatch> batches(1);
    batches[0].max_blocks = std::ssize(blocks);
    const auto tokens =
        std::span(job.tokens).subspan(static_cast<size_t>(entry.first), static_cast<size_t>(entry.count));
    add_sequence(batches[0], {.tokens = tokens, .first = entry.first, .blocks = blocks},
                 runner_.block_tokens());
    TESSERA_RETURN_IF_ERROR(runner_.forward(batches));
    const int64_t complete = (entry.first + entry.count) / runner_.block_tokens();
    TESSERA_RETURN_IF_ERROR(
        send(blocks.subspan(static_cast<size_t>(sent), static_cast<size_t>(complete - sent))));
    sent = complete;
    return {};
  }

  Status send(std::span<const batching::BlockId> blocks) {
    if (blocks.empty()) return {};
    bytes_.resize(blocks.size() * static_cast<size_t>(runner_.block_bytes()));
    runner_.read_blocks(blocks, bytes_);
    return send_blocks(decoder_, runner_.block_bytes(), bytes_);
  }

  StepRunner& runner_;
  batching::Scheduler scheduler_;
  Group& decoder_;
  std::vector<std::byte> bytes_;
};

}  // namespace

Status follow_decoder(StepRunner& runner, const batching::SchedulerOptions& scheduling, Group& decoder) {
  auto alone = make_single_group();
  runner.connect({.world = alone.get()});
  PrefillWorker worker(runner, scheduling, decoder);
  while (true) {
    TESSERA_ASSIGN_OR_RETURN(PrefillOrder order, receive_order(decoder));
    if (order.command == Command::stop) return {};
    if (order.command == Command::step) TESSERA_RETURN_IF_ERROR(worker.work(order.job));
  }
}

}  // namespace tessera::serve
