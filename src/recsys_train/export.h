// A trained model as a folder that servers read, also while training goes on:
//
//   model.json            what the model is: features and their encodings, dense network, groups of rows
//   dense-N.safetensors   dense weights of version N, under the names of its layers
//   rows-S-N.full, .delta rows of embedding server S (recsys/snapshot.h): whole, or what changed since N - 1
//   version-N.json        written last: number, base (the version whose rows are whole), step, time of the cut
//   in
//                         seconds since 1970, and the names of its files
//
// A reader takes the rows of the base and of each version up to the newest, in order, and the dense weights of
// the newest. Every file appears whole or not at all. Versions before the base before the last are removed.
//
// Threads: functions any. Errors: of files; data_loss for content that was not written here.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "recsys_data/encoding.h"
#include "recsys_train/lookup.h"
#include "recsys_train/model.h"
#include "recsys_train/worker.h"

namespace tessera::recsys_train {

struct ExportedModel {
  ModelOptions model;
  recsys_data::EncodedFeatures features;
  LookupPlan lookup;
  std::vector<recsys::GroupOptions> store_groups;  // what decides the layout and the first values of rows
  int64_t num_servers = 1;                         // that the run began with
};
struct RunConfig;
struct Setup;
// What the trainer of a run exports. Errors: data without encodings.
Result<ExportedModel> exported_model(const RunConfig& run, const Setup& setup);
std::string to_text(const ExportedModel& model);
Result<ExportedModel> read_exported_model(const std::filesystem::path& folder);
// With the weights of the file; shapes must be those of the model.
Result<std::unique_ptr<DenseModel>> make_dense_model(const ExportedModel& model);
Status write_dense(const std::filesystem::path& path, const Parameters& parameters,
                   const at::Tensor& flat_values);
Status read_dense(const std::filesystem::path& path, const Parameters& parameters);

struct ExportedVersion {
  int64_t number = 0, base = 0, step = 0;
  double time = 0;
  std::string dense;
  std::vector<std::string> rows;  // of each server; as many as at the base
};
Result<ExportedVersion> read_exported_version(const std::filesystem::path& folder, int64_t number);
// The number of the newest version; 0: none.
int64_t newest_exported_version(const std::filesystem::path& folder);

struct ExportOptions {
  std::filesystem::path folder;
  double interval_s = 0;      // between two versions while training; 0: one at the end
  int64_t most_deltas = 100;  // then the rows are written whole again
};

// Writes versions beside training. Threads: after_step() on the thread of the dense step, finish() after it;
// the parts must outlive the exporter.
class Exporter {
 public:
  // Errors: a folder that holds another model.
  static Result<std::unique_ptr<Exporter>> open(ExportOptions options, const ExportedModel& model,
                                                EmbeddingWorker& worker, DenseModel& dense);
  ~Exporter();

  // Begins a version when one is due and none is being written. It never waits.
  void after_step(int64_t steps_done);
  // Writes the last version and ends. The error of an earlier one counts too.
  Status finish(int64_t steps_done);
  int64_t versions() const { return versions_; }

 private:
  struct Order {
    int64_t step;
    at::Tensor weights;
  };
  Exporter(ExportOptions options, int64_t num_servers, EmbeddingWorker& worker, DenseModel& dense)
      : options_(std::move(options)), num_servers_(num_servers), worker_(worker), dense_(dense) {}
  void work();
  Status write(const Order& order);
  Status write(const Order& order, bool full);
  Status write_files(const Order& order, const VersionRequest& request, ExportedVersion& version);
  void remove_files(const ExportedVersion& version) const;
  void remove_old();

  ExportOptions options_;
  int64_t num_servers_;
  EmbeddingWorker& worker_;
  DenseModel& dense_;
  uint64_t next_request_ = 0;
  int64_t next_ = 1, base_ = 0, base_before_ = 0, versions_ = 0;
  bool needs_full_ = true;
  Clock::time_point last_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Order> order_;
  bool busy_ = false, ends_ = false;
  Status status_;
  std::thread thread_;
};

}  // namespace tessera::recsys_train
