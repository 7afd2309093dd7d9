#include "checkpoint/disk.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/file.h"

namespace tessera::checkpoint {

Result<OpenFile> OpenFile::open(const std::filesystem::path& path, int flags, const char* operation) {
  int number = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (number < 0) return system_error(operation, path, errno);
  return OpenFile(number, path);
}

Result<OpenFile> OpenFile::for_reading(const std::filesystem::path& path) {
  return open(path, O_RDONLY, "open");
}
Result<OpenFile> OpenFile::for_writing(const std::filesystem::path& path) {
  return open(path, O_WRONLY, "open");
}

Result<OpenFile> OpenFile::create(const std::filesystem::path& path, int64_t bytes) {
  auto file = open(path, O_RDWR | O_CREAT | O_EXCL, "create");
  if (!file || bytes == 0) return file;
  int failed = ::posix_fallocate(file->number_, 0, bytes);
  if (failed == 0) return file;
  Error error = system_error(fmt::format("reserve {} bytes for", bytes), path, failed);
  if (failed == EFBIG) error.code = ErrorCode::resource_exhausted;
  return error;
}

OpenFile& OpenFile::operator=(OpenFile&& other) noexcept {
  std::swap(number_, other.number_);
  std::swap(path_, other.path_);
  return *this;
}

OpenFile::~OpenFile() {
  if (number_ >= 0) ::close(number_);
}

Status OpenFile::read_at(int64_t position, std::span<std::byte> out) const {
  while (!out.empty()) {
    ssize_t got = ::pread(number_, out.data(), out.size(), position);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EIO)
      return make_error(ErrorCode::data_loss, "read {}: {}", path_.string(), errno_text(EIO));
    if (got < 0) return system_error("read", path_, errno);
    if (got == 0)
      return make_error(ErrorCode::data_loss, "{} ends at byte {}, {} bytes too early", path_.string(),
                        position, out.size());
    out = out.subspan(static_cast<size_t>(got));
    position += got;
  }
  return {};
}

Status OpenFile::write_at(int64_t position, std::span<const std::byte> data) const {
  while (!data.empty()) {
    ssize_t written = ::pwrite(number_, data.data(), data.size(), position);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error("write", path_, errno);
    data = data.subspan(static_cast<size_t>(written));
    position += written;
  }
  return {};
}

Status OpenFile::sync() const {
  if (::fsync(number_) != 0) return system_error("fsync", path_, errno);
  return {};
}

Result<int64_t> OpenFile::bytes() const {
  struct stat info {};
  if (::fstat(number_, &info) != 0) return system_error("stat", path_, errno);
  return static_cast<int64_t>(info.st_size);
}

Status sync_directory(const std::filesystem::path& path) {
  int number = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (number < 0) return system_error("open", path, errno);
  int failed = ::fsync(number) != 0 ? errno : 0;
  ::close(number);
  // Some file systems have nothing to do for a directory and say so.
  if (failed != 0 && failed != EINVAL) return system_error("fsync", path, failed);
  return {};
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(OpenFile file, OpenFile::for_reading(path));
  TESSERA_ASSIGN_OR_RETURN(int64_t bytes, file.bytes());
  if (bytes == 0) return MappedFile({});
  int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (number < 0) return system_error("open", path, errno);
  void* data = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_SHARED, number, 0);
  int failed = data == MAP_FAILED ? errno : 0;
  ::close(number);
  if (failed != 0) return system_error("map", path, failed);
  return MappedFile({static_cast<const std::byte*>(data), static_cast<size_t>(bytes)});
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace tessera::checkpoint
