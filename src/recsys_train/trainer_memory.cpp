#include "recsys_train/trainer_memory.h"

#include "recsys/shared_file.h"

namespace tessera::recsys_train {
namespace {

constexpr int64_t kStates = 4096;

int64_t lines(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

}  // namespace

float* TrainerMemory::state_at(size_t place) const {
  int64_t offset = kStates + static_cast<int64_t>(place) * lines(4 * shape_.state_floats);
  return reinterpret_cast<float*>(region_.data() + offset);
}

TrainerMemory::Slot& TrainerMemory::slot(int64_t step) const {
  int64_t bytes = lines(static_cast<int64_t>(sizeof(Slot)) + 4 * shape_.gradient_floats);
  int64_t offset = kStates + 2 * lines(4 * shape_.state_floats) + step % shape_.slots * bytes;
  return *reinterpret_cast<Slot*>(region_.data() + offset);
}

Result<std::unique_ptr<TrainerMemory>> TrainerMemory::open(const std::string& path, const Shape& shape) {
  auto memory = std::make_unique<TrainerMemory>();
  memory->shape_ = shape;
  int64_t slot_bytes = lines(static_cast<int64_t>(sizeof(Slot)) + 4 * shape.gradient_floats);
  int64_t bytes = kStates + 2 * lines(4 * shape.state_floats) + shape.slots * slot_bytes;
  if (path.empty()) {
    TESSERA_ASSIGN_OR_RETURN(memory->region_, recsys::Region::reserve(bytes));
  } else {
    TESSERA_ASSIGN_OR_RETURN(recsys::SharedFile file, recsys::open_shared_file(path, bytes));
    memory->region_ = std::move(file.region);
  }
  Header& header = memory->header();
  if (header.magic == 0) {
    header.shape = shape;
    std::atomic_thread_fence(std::memory_order_release);
    header.magic = Header::kMagic;
  }
  if (header.magic != Header::kMagic || !(header.shape == shape))
    return make_error(ErrorCode::data_loss,
                      "{} holds a trainer of another model or batch: {} floats of state, expected {}", path,
                      header.shape.state_floats, shape.state_floats);
  return memory;
}

void TrainerMemory::commit(const Standing& progress) {
  header().progress[1 - place()] = progress;
  header().commits.fetch_add(1, std::memory_order_acq_rel);
}

std::span<float> TrainerMemory::draft(int64_t step) {
  Slot& at = slot(step);
  at.step.store(0, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_acq_rel);  // forgotten before it is overwritten
  return {reinterpret_cast<float*>(&at + 1), count(shape_.gradient_floats)};
}

void TrainerMemory::keep(const Standing& progress) {
  Slot& at = slot(progress.step);
  at.at = progress;
  at.step.store(static_cast<uint64_t>(progress.step) + 1, std::memory_order_release);
}

std::optional<TrainerMemory::Kept> TrainerMemory::kept(int64_t step) const {
  Slot& at = slot(step);
  if (at.step.load(std::memory_order_acquire) != static_cast<uint64_t>(step) + 1) return std::nullopt;
  return Kept{at.at, {reinterpret_cast<const float*>(&at + 1), count(shape_.gradient_floats)}};
}

}  // namespace tessera::recsys_train
