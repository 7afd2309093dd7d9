// Samples of equal length from a token file. In each epoch the documents are shuffled and laid back to back;
// that stream, begun at a shuffled offset, is cut into samples, and the samples are shuffled too (a file of one
// long document needs that). Everything is a pure function of (token file, seq, seed, index).
//
//   stream of an epoch   | skipped | sample k = 0 | sample 1 | ... | sample S-1 | skipped |     S = tokens /
//   seq sample(g)            epoch g / S, k = permutation(g mod S); it reads seq + 1 tokens, the last only as a
//   target
//
// Fewer than seq tokens are skipped in an epoch, others each time.
#pragma once

#include <memory>
#include <mutex>

#include "core/result.h"
#include "data/sample.h"
#include "data/token_file.h"

namespace tessera::data {

struct PackedOptions {
  int64_t seq = 0;  // tokens of a sample
  uint64_t seed = 0;
  bool shuffle = true;     // off: documents and samples in order, nothing skipped in front (evaluation)
  int64_t vocab_size = 0;  // above 0: ids are checked against it, which reads the file once
};

class PackedDataset : public SampleSource {
 public:
  // Errors: those of TokenFile::open; invalid_argument when the file holds less than one sample or ids outside
  // the vocabulary.
  static Result<std::unique_ptr<PackedDataset>> open(const std::filesystem::path& prefix,
                                                     PackedOptions options);

  int64_t seq() const override { return options_.seq; }
  Sample sample(int64_t global_index) const override;

  int64_t samples_per_epoch() const { return samples_per_epoch_; }
  int64_t num_tokens() const { return file_.num_tokens(); }
  // Sum of Sample::valid_tokens() over [first, first + count), without reading tokens.
  int64_t valid_tokens(int64_t first, int64_t count) const;

 private:
  struct Epoch;
  struct Place {
    std::shared_ptr<const Epoch> epoch;
    int64_t begin;  // in the epoch's stream
  };
  PackedDataset(TokenFile file, PackedOptions options);
  Place place_of(int64_t global_index) const;
  std::shared_ptr<const Epoch> epoch(int64_t number) const;
  std::shared_ptr<const Epoch> make_epoch(int64_t number) const;

  TokenFile file_;
  PackedOptions options_;
  std::vector<int64_t> documents_;  // those that are not empty
  int64_t samples_per_epoch_ = 0;
  // The orders used last: loaders of neighbouring samples ask for the same one or two.
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<const Epoch>> recent_;
};

}  // namespace tessera::data
