// manifest.json: what a checkpoint holds and the hash of every byte of it. It is written last, so a directory
// with a manifest is complete; it carries its own hash, so a damaged manifest is noticed as well.
//
// {"format": "tessera-checkpoint", "version": 1, "step": 1200,
//  "files": [{"name", "bytes", "hashed_bytes", "xxh3"}],
//  "arrays": [{"tensor", "content", "dtype", "shape", "file", "begin",
//              "extents": [{"offset", "size", "at", "xxh3"}]}],
//  "manifest_xxh3"}
// A file's hash covers its first `hashed_bytes`: all of a JSON file, the header of a safetensors file. The hash
// of an extent covers its values in row-major order of its box, which need not be one range of the file (`at`
// is the byte of its first value). Extents of an array tile it: no gap, no overlap. manifest_xxh3 is the hash
// of the document without that field, printed without spaces and with sorted keys. Hashes are XXH3-64, 16 hex
// digits.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/file_plan.h"
#include "layout/extents.h"

namespace tessera::checkpoint {

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr int kManifestVersion = 1;

struct HashedExtent {
  Extent box;
  uint64_t hash = 0;
};

struct ManifestFile {
  std::string name;
  int64_t bytes = 0, hashed_bytes = 0;
  uint64_t hash = 0;
};

struct ManifestArray {
  PlannedArray array;  // its `file` is an index into Manifest::files
  std::vector<HashedExtent> extents;
};

struct Manifest {
  int64_t step = 0;
  std::vector<ManifestFile> files;
  std::vector<ManifestArray> arrays;
};

// Whether the extents tile the array. The error names the first missing or doubly given part.
Status check_tiling(const ManifestArray& array);

// "FILE: tensor T rows 0..63 has hash 9f.. but the manifest says 41.."
std::string describe_mismatch(const Manifest& manifest, const ManifestArray& array, const HashedExtent& extent,
                              uint64_t got);

Result<std::string> to_text(const Manifest& manifest);
// Whether the text says that it is a manifest of ours, whole or damaged.
bool is_manifest(std::string_view text);
// Errors (data_loss): not a manifest, an unknown version, its own hash, extents that do not tile.
Result<Manifest> parse_manifest(std::string_view text);

}  // namespace tessera::checkpoint
