// Rows on their way from one process to another: a file of the process that has them, read in pieces over a
// link, and written again by the one that takes them.
#pragma once

#include <string>

#include "recsys_roles/link.h"

namespace tessera::recsys_roles {

// A file of this process that is gone with it, or sooner.
class CopyFile {
 public:
  CopyFile();
  ~CopyFile();
  CopyFile(const CopyFile&) = delete;
  CopyFile& operator=(const CopyFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Result<uint64_t> bytes_of_file(const std::string& path);
// The bytes from `offset` on, at most 8 MB, as the answer to a request; none past the end.
Message read_piece(const std::string& path, uint64_t offset);
// Asks `from` piece by piece with request(offset), until `bytes` of them are in the file.
Status fetch_file(Caller& from, const std::function<Message(uint64_t offset)>& request, uint64_t bytes,
                  const std::string& path);

}  // namespace tessera::recsys_roles
