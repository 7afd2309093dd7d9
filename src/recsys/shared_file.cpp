#include "recsys/shared_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/file.h"

namespace tessera::recsys {

Result<SharedFile> open_shared_file(const std::string& path, int64_t bytes) {
  int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return system_error("open", path, errno);
  auto fail = [&](Error error) {
    ::close(descriptor);
    return error;
  };
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0)
    return fail(make_error(ErrorCode::unavailable,
                           "{} is in use by another process; a store needs its own files", path));
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return fail(system_error("stat", path, errno));
  SharedFile file;
  file.is_new = status.st_size == 0;
  if (!file.is_new && status.st_size != bytes)
    return fail(
        make_error(ErrorCode::data_loss,
                   "{} has {} bytes, expected {}; it was written by a store with other groups, or cut short",
                   path, static_cast<int64_t>(status.st_size), bytes));
  if (file.is_new && ::ftruncate(descriptor, bytes) != 0) return fail(system_error("extend", path, errno));
  TESSERA_ASSIGN_OR_RETURN(file.region, Region::map(descriptor, bytes));
  return file;
}

Result<std::unique_ptr<MemoryKeeper>> MemoryKeeper::create(int64_t files) {
  auto keeper = std::make_unique<MemoryKeeper>();
  for (int64_t i = 0; i < files; ++i) {
    int descriptor = ::memfd_create("tessera-rows", MFD_CLOEXEC);
    if (descriptor < 0)
      return make_error(ErrorCode::resource_exhausted, "no memory file: {}", errno_text(errno));
    keeper->descriptors_.push_back(descriptor);
    keeper->paths_.push_back(fmt::format("/proc/{}/fd/{}", ::getpid(), descriptor));
  }
  return keeper;
}

MemoryKeeper::~MemoryKeeper() {
  for (int descriptor : descriptors_) ::close(descriptor);
}

}  // namespace tessera::recsys
