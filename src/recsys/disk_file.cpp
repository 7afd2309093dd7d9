#include "recsys/disk_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "core/file.h"

namespace tessera::recsys {

void PageBuffer::Free::operator()(std::byte* memory) const {
  std::free(memory);
}

std::byte* PageBuffer::at_least(size_t bytes) {
  if (bytes > bytes_) {
    bytes_ = (bytes + bytes / 2 + kDiskPage - 1) / kDiskPage * kDiskPage;
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kDiskPage, bytes_)));
    TESSERA_REQUIRE(memory_ != nullptr, "no memory for {} bytes", bytes_);
  }
  return memory_.get();
}

Status read_fully(int descriptor, const std::string& name, int64_t offset, std::span<std::byte> into) {
  for (size_t done = 0; done < into.size();) {
    ssize_t count =
        ::pread(descriptor, into.data() + done, into.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return system_error("read", name, errno);
    if (count == 0)
      return make_error(ErrorCode::data_loss, "{} ends at byte {}, expected {} bytes from {}; it was cut short",
                        name, offset + static_cast<int64_t>(done), into.size(), offset);
    done += static_cast<size_t>(count);
  }
  return {};
}

namespace {

int open_with(const std::string& folder, const std::string& path, int flags) {
  if (path.empty()) return ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
  return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600);
}

// File systems without files that have no name.
int open_and_unlink(const std::string& folder, int flags) {
  std::string name = folder + "/tessera-rows-XXXXXX";
  int descriptor = ::mkostemp(name.data(), O_CLOEXEC | flags);
  if (descriptor >= 0) ::unlink(name.c_str());
  return descriptor;
}

}  // namespace

Result<std::unique_ptr<DiskFile>> DiskFile::open(const DiskOptions& options, const std::string& path) {
  std::error_code ignored;  // the open below says what is wrong
  std::filesystem::create_directories(options.folder, ignored);
  auto file = std::make_unique<DiskFile>();
  file->name_ = path.empty() ? options.folder + "/(rows)" : path;
  file->io_uring_ = options.io_uring;
  file->direct_ = options.direct;
  int flags = options.direct ? O_DIRECT : 0;
  file->descriptor_ = open_with(options.folder, path, flags);
  if (file->descriptor_ < 0 && path.empty() && errno != ENOENT)
    file->descriptor_ = open_and_unlink(options.folder, flags);
  if (file->descriptor_ < 0 && options.direct && errno == EINVAL)
    return invalid("{}: this file system cannot be read past the page cache; leave out `direct`", file->name_);
  if (file->descriptor_ < 0) return system_error("open", file->name_, errno);
  struct stat status {};
  if (::fstat(file->descriptor_, &status) != 0) return system_error("stat", file->name_, errno);
  file->bytes_ = status.st_size;
  ::posix_fadvise(file->descriptor_, 0, 0,
                  POSIX_FADV_RANDOM);  // the neighbours of a row are no better than others
  return file;
}

DiskFile::~DiskFile() {
  idle_.clear();
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status DiskFile::allocate(int64_t offset, int64_t bytes) {
  int number = ::posix_fallocate(descriptor_, offset, bytes);
  while (number == EINTR) number = ::posix_fallocate(descriptor_, offset, bytes);
  return number == 0 ? Status() : system_error("extend", name_, number);
}

Status DiskFile::write(int64_t offset, std::span<const std::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    ssize_t count =
        ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return system_error("write", name_, errno);
    done += static_cast<size_t>(count);
  }
  return {};
}

Status DiskFile::read(int64_t offset, std::span<std::byte> bytes) const {
  return read_fully(descriptor_, name_, offset, bytes);
}

std::unique_ptr<BatchReader> DiskFile::take_reader() {
  std::lock_guard lock(mutex_);
  if (!idle_.empty()) {
    auto reader = std::move(idle_.back());
    idle_.pop_back();
    return reader;
  }
  std::unique_ptr<BatchReader> reader;
  if (io_uring_) reader = make_uring_reader(descriptor_, name_);
  io_uring_ = reader != nullptr;
  return reader ? std::move(reader) : make_thread_reader(descriptor_, name_);
}

Status DiskFile::read_batch(std::span<const DiskRead> reads, size_t bytes) {
  if (reads.empty()) return {};
  auto reader = take_reader();
  Status status = reader->read(reads, bytes);
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(reader));
  return status;
}

}  // namespace tessera::recsys
