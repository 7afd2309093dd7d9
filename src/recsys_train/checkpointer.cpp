#include "recsys_train/checkpointer.h"

#include "core/log.h"
#include "recsys_train/checkpoint.h"

namespace tessera::recsys_train {
namespace {

void warn(const Standing& at, const Error& error) {
  log(LogLevel::warn, "no checkpoint of step {}, training goes on: {}", at.step, error.message);
}

}  // namespace

void Checkpointer::wait() {
  if (writer_.joinable()) writer_.join();
}

void Checkpointer::save(const Standing& at) {
  wait();
  if (at.step == first_step_) return;
  if (Status begun = begin(at); !begun.ok()) return warn(at, begun.error());
  writer_ = std::thread([this, at, dense = setup_.trainer->state()] {
    if (Status status = finish(at, dense); !status.ok()) warn(at, status.error());
  });
}

Status Checkpointer::begin(const Standing& at) {
  const std::filesystem::path folder = checkpoint_folder(run_.run_dir, at.step);
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure)
    return make_error(ErrorCode::resource_exhausted, "cannot make {}: {}", folder.string(), failure.message());
  std::filesystem::remove(folder / "manifest.json", failure);  // no checkpoint until it is whole
  const bool full = saved_++ % run_.full_every == 0;
  return setup_.worker->begin_save(std::filesystem::absolute(folder.parent_path()).string(), at.step, full);
}

Status Checkpointer::finish(const Standing& at, const std::vector<float>& dense) {
  Checkpoint checkpoint{.folder = checkpoint_folder(run_.run_dir, at.step),
                        .standing = at,
                        .batch = run_.trainer.batch,
                        .parts = run_.trainer.parts};
  TESSERA_ASSIGN_OR_RETURN(checkpoint.servers, setup_.worker->finish_save(at.step));
  TESSERA_RETURN_IF_ERROR(write_checkpoint(checkpoint, dense));
  if (run_.keep > 0) remove_old_checkpoints(run_.run_dir, run_.keep, run_.resume);
  return {};
}

}  // namespace tessera::recsys_train
