#include "data/packed_dataset.h"

#include <algorithm>

#include "data/permutation.h"

namespace tessera::data {
namespace {

constexpr size_t kRecentEpochs = 3;
// Apart, so that the shuffles of documents, samples and offsets do not resemble each other.
enum Purpose : uint64_t { kDocuments = 1, kSamples = 2, kOffset = 3 };

Status check_ids(const TokenFile& file, int64_t vocab_size) {
  auto counts = file.counts_by_id();
  auto largest = static_cast<int64_t>(counts.size()) - 1;
  if (largest < vocab_size) return {};
  return invalid("{}: has token {}, but the vocabulary ends at {}; was it packed with another tokenizer?",
                 file.prefix().string(), largest, vocab_size - 1);
}

}  // namespace

struct PackedDataset::Epoch {
  int64_t number;
  std::vector<int64_t> documents;  // in this epoch's order
  std::vector<int64_t> starts;     // of each in the stream, and the end of the last
  int64_t offset;                  // where sample 0 begins
  Permutation samples;

  // Which document holds a place of the stream, as an index into `documents`.
  size_t document_at(int64_t place) const {
    auto after = std::upper_bound(starts.begin(), starts.end(), place);
    return static_cast<size_t>(after - starts.begin()) - 1;
  }
};

Result<std::unique_ptr<PackedDataset>> PackedDataset::open(const std::filesystem::path& prefix,
                                                           PackedOptions options) {
  if (options.seq < 1) return invalid("a sample of {} tokens; seq must be at least 1", options.seq);
  TESSERA_ASSIGN_OR_RETURN(TokenFile file, TokenFile::open(prefix));
  if (file.num_tokens() < options.seq)
    return invalid("{}: has {} tokens, less than one sample of {}; give more text or a smaller seq",
                   prefix.string(), file.num_tokens(), options.seq);
  if (options.vocab_size > 0) TESSERA_RETURN_IF_ERROR(check_ids(file, options.vocab_size));
  return std::unique_ptr<PackedDataset>(new PackedDataset(std::move(file), options));
}

PackedDataset::PackedDataset(TokenFile file, PackedOptions options)
    : file_(std::move(file)), options_(options) {
  for (int64_t i = 0; i < file_.num_documents(); ++i)
    if (file_.length(i) > 0) documents_.push_back(i);
  samples_per_epoch_ = file_.num_tokens() / options_.seq;
}

Sample PackedDataset::sample(int64_t global_index) const {
  Place place = place_of(global_index);
  const Epoch& order = *place.epoch;
  auto seq = static_cast<size_t>(options_.seq);
  Sample sample{.tokens = std::vector<int64_t>(seq),
                .targets = std::vector<int64_t>(seq, kNoTarget),
                .positions = std::vector<int64_t>(seq),
                .starts = std::vector<int32_t>(seq)};
  size_t filled = 0;
  for (size_t at = order.document_at(place.begin); filled < seq; ++at) {
    int64_t from = std::max<int64_t>(0, place.begin - order.starts[at]);
    int64_t left = order.starts[at + 1] - order.starts[at] - from;
    size_t count = std::min(seq - filled, static_cast<size_t>(left));
    file_.read(order.documents[at], from, std::span(sample.tokens).subspan(filled, count));
    // Each token predicts the next one of its document; the sample's last may need a token from beyond it.
    size_t targets = std::min(count, static_cast<size_t>(left - 1));
    file_.read(order.documents[at], from + 1, std::span(sample.targets).subspan(filled, targets));
    for (size_t i = 0; i < count; ++i) {
      sample.positions[filled + i] = static_cast<int64_t>(i);
      sample.starts[filled + i] = static_cast<int32_t>(filled);
    }
    filled += count;
  }
  return sample;
}

int64_t PackedDataset::valid_tokens(int64_t first, int64_t count) const {
  int64_t valid = 0;
  for (int64_t index = first; index < first + count; ++index) {
    Place place = place_of(index);
    // Ends of documents inside the sample predict nothing.
    const auto& starts = place.epoch->starts;
    auto ends_before = [&](int64_t at) {
      return std::upper_bound(starts.begin() + 1, starts.end(), at) - starts.begin();
    };
    valid += options_.seq - (ends_before(place.begin + options_.seq) - ends_before(place.begin));
  }
  return valid;
}

PackedDataset::Place PackedDataset::place_of(int64_t global_index) const {
  TESSERA_REQUIRE(global_index >= 0, "sample {} of {}", global_index, file_.prefix().string());
  auto order = epoch(global_index / samples_per_epoch_);
  int64_t within = global_index % samples_per_epoch_;
  int64_t slot = options_.shuffle ? order->samples(within) : within;
  int64_t begin = order->offset + slot * options_.seq;
  return {std::move(order), begin};
}

std::shared_ptr<const PackedDataset::Epoch> PackedDataset::epoch(int64_t number) const {
  std::lock_guard lock(mutex_);
  for (const auto& known : recent_)
    if (known->number == number) return known;
  if (recent_.size() == kRecentEpochs) recent_.erase(recent_.begin());
  recent_.push_back(make_epoch(number));
  return recent_.back();
}

std::shared_ptr<const PackedDataset::Epoch> PackedDataset::make_epoch(int64_t number) const {
  uint64_t key = mix(options_.seed, static_cast<uint64_t>(number));
  auto count = static_cast<int64_t>(documents_.size());
  Permutation shuffle(count, mix(key, kDocuments));
  int64_t spare = file_.num_tokens() - samples_per_epoch_ * options_.seq;
  auto offset = static_cast<int64_t>(mix(key, kOffset) % static_cast<uint64_t>(spare + 1));
  auto order = std::make_shared<Epoch>(Epoch{.number = number,
                                             .offset = options_.shuffle ? offset : 0,
                                             .samples = Permutation(samples_per_epoch_, mix(key, kSamples))});
  int64_t start = 0;
  for (int64_t i = 0; i < count; ++i) {
    order->documents.push_back(documents_[static_cast<size_t>(options_.shuffle ? shuffle(i) : i)]);
    order->starts.push_back(start);
    start += file_.length(order->documents.back());
  }
  order->starts.push_back(start);
  return order;
}

}  // namespace tessera::data
