#include "recsys_train/loader.h"

namespace tessera::recsys_train {

DataFacts facts_of(const recsys_data::Splits& splits) {
  DataFacts facts{.features = splits.train->features(),
                  .train_rows = splits.train->rows(),
                  .has_test = splits.test != nullptr,
                  .best_auc = splits.best_auc,
                  .encodings = std::nullopt};
  if (const auto* source = dynamic_cast<const recsys_data::EncodedSource*>(splits.train.get()))
    facts.encodings = source->encodings();
  return facts;
}

Status LocalLoader::read_one(recsys_data::Source& source, Stream& stream) {
  if (stream.ended) return {};
  recsys_data::Batch batch = std::move(stream.spare);
  if (static_cast<int64_t>(stream.kept.size()) > keep_) {
    batch = std::move(stream.kept.front());
    stream.kept.pop_front();
  }
  TESSERA_RETURN_IF_ERROR(source.next(stream.rows, batch));
  stream.ended = batch.rows == 0;
  if (stream.ended) return {};
  batch.number = stream.next++;
  stream.kept.push_back(std::move(batch));
  return {};
}

// Makes `stream` hold the batch of `key`, unless the epoch ends before.
Status LocalLoader::go_to(recsys_data::Source& source, Stream& stream, const BatchKey& key) {
  const int64_t oldest = stream.next - static_cast<int64_t>(stream.kept.size());
  const bool same = stream.epoch == key.epoch && stream.rows == key.rows;
  if (!same || key.number < oldest || (key.number > stream.next && !stream.ended)) {
    stream = {
        .epoch = key.epoch, .rows = key.rows, .next = key.number, .ended = false, .kept = {}, .spare = {}};
    TESSERA_RETURN_IF_ERROR(source.start_epoch(key.epoch));
    TESSERA_RETURN_IF_ERROR(source.skip(key.number * key.rows));
  }
  while (!stream.ended && stream.next <= std::max(key.number, key.last))
    TESSERA_RETURN_IF_ERROR(read_one(source, stream));
  return {};
}

Status LocalLoader::load(const BatchKey& key, recsys_data::Batch& out) {
  std::lock_guard lock(mutex_);
  recsys_data::Source* source = key.split == Split::train ? splits_.train.get() : splits_.test.get();
  if (source == nullptr) return invalid("the data has no test rows");
  Stream& stream = streams_[static_cast<size_t>(key.split)];
  if (Status status = go_to(*source, stream, key); !status.ok()) {
    stream = {};
    return status;
  }
  out.rows = 0;
  if (stream.next <= std::max(key.number, key.last)) return {};
  auto& kept = stream.kept[stream.kept.size() - static_cast<size_t>(stream.next - key.number)];
  if (keep_ > 0) return out = kept, Status();
  stream.spare = std::exchange(out, std::move(kept));
  stream.kept.clear();
  return {};
}

}  // namespace tessera::recsys_train
