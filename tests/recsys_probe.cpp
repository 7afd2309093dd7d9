// Trains by a configuration and writes what a reference needs to do the same: the batches in order, the initial
// rows and weights, and what became of them. Raw little-endian arrays and an index:
//
//   recsys_probe CONFIG FOLDER [key=value ...]
//   FOLDER/index.json            parameters (name, shape), slots, sequences, rows, dim, wide, losses
//   FOLDER/labels, numeric       float32 [rows], [rows, N], in the order of training
//   FOLDER/slot-S.places         int64: place of each id of slot S in the list of distinct keys
//   FOLDER/slot-S.offsets        int64 [rows + 1]
//   FOLDER/{initial,final}.rows  float32 [keys, dim]; .wide [keys]; .dense: all parameters in order
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "recsys_train/run.h"

namespace tessera::recsys_train {
namespace {

template <class T>
void write(const std::filesystem::path& path, std::span<const T> values) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size_bytes()));
}

// Everything the source hands out in one epoch, as one batch.
Result<recsys_data::Batch> all_rows(recsys_data::Source& source) {
  recsys_data::Batch all;
  TESSERA_RETURN_IF_ERROR(source.start_epoch(0));
  TESSERA_RETURN_IF_ERROR(source.next(int64_t{1} << 22, all));
  return all;
}

Status write_state(Setup& setup, const std::vector<uint64_t>& keys, const std::filesystem::path& folder,
                   const std::string& name) {
  const LookupPlan& plan = setup.embeddings.lookup;
  std::vector<float> rows(keys.size() * static_cast<size_t>(plan.dim)), wide(keys.size());
  TESSERA_RETURN_IF_ERROR(setup.servers->get(0, keys, rows, {.access = recsys::Access::read}));
  if (plan.wide) TESSERA_RETURN_IF_ERROR(setup.servers->get(1, keys, wide, {.access = recsys::Access::read}));
  write<float>(folder / (name + ".rows"), rows);
  write<float>(folder / (name + ".wide"), wide);
  at::Tensor dense = setup.model->parameters().flat_values();
  write<float>(folder / (name + ".dense"), {dense.data_ptr<float>(), static_cast<size_t>(dense.numel())});
  return {};
}

Status probe(const std::string& config, const std::filesystem::path& folder,
             const std::vector<std::string>& overrides) {
  TESSERA_ASSIGN_OR_RETURN(RunConfig run, load_run_config(config, overrides));
  at::set_num_threads(1);
  std::filesystem::create_directories(folder);
  TESSERA_ASSIGN_OR_RETURN(auto setup, set_up(run));
  TESSERA_ASSIGN_OR_RETURN(recsys_data::Batch all, all_rows(*setup->data->train));
  write<float>(folder / "labels", all.labels);
  write<float>(folder / "numeric", all.numeric);
  std::vector<uint64_t> keys;
  std::unordered_map<uint64_t, int64_t> place_of;
  for (size_t s = 0; s < all.slots.size(); ++s) {
    std::vector<int64_t> places, offsets = {0};
    for (int64_t i = 0; i < all.rows; ++i) {
      for (uint64_t id : all.slots[s].row(i)) {
        auto [found, added] = place_of.emplace(key_of(setup->embeddings.lookup.rows_of(s), id),
                                               static_cast<int64_t>(keys.size()));
        if (added) keys.push_back(found->first);
        places.push_back(found->second);
      }
      offsets.push_back(static_cast<int64_t>(places.size()));
    }
    write<int64_t>(folder / fmt::format("slot-{}.places", s), places);
    write<int64_t>(folder / fmt::format("slot-{}.offsets", s), offsets);
  }
  TESSERA_RETURN_IF_ERROR(write_state(*setup, keys, folder, "initial"));
  std::vector<double> losses;
  TESSERA_ASSIGN_OR_RETURN(
      RunResult result,
      train(run, *setup, {.on_step = [&](const StepReport& step) { losses.push_back(step.loss); }}));
  TESSERA_RETURN_IF_ERROR(write_state(*setup, keys, folder, "final"));
  nlohmann::json parameters = nlohmann::json::array();
  for (const Parameter& parameter : setup->model->parameters().all())
    parameters.push_back({{"name", parameter.name}, {"shape", parameter.value.sizes().vec()}});
  nlohmann::json sequences = nlohmann::json::array();
  for (const SequencePlace& place : setup->embeddings.lookup.sequences())
    sequences.push_back({{"slot", place.slot}, {"target", place.target}, {"length", place.length}});
  nlohmann::json index = {{"parameters", parameters},
                          {"slots", all.slots.size()},
                          {"sequences", sequences},
                          {"rows", all.rows},
                          {"keys", keys.size()},
                          {"dim", run.embedding.dim},
                          {"wide", setup->embeddings.lookup.wide},
                          {"losses", losses},
                          {"test_auc", result.test().auc}};
  std::ofstream(folder / "index.json") << index.dump();
  return {};
}

}  // namespace
}  // namespace tessera::recsys_train

int main(int count, char** words) {
  if (count < 3) return std::fprintf(stderr, "usage: recsys_probe CONFIG FOLDER [key=value ...]\n"), 2;
  auto status = tessera::recsys_train::probe(words[1], words[2], {words + 3, words + count});
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  return status.ok() ? 0 : 1;
}
