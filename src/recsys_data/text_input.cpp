#include "recsys_data/text_input.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/file.h"
#include "recsys_data/scan.h"

namespace tessera::recsys_data {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // stays in the second-level cache between reading and parsing

// Where bytes come from; read() returns 0 at the end.
class ByteInput {
 public:
  virtual ~ByteInput() = default;
  virtual Result<int64_t> read(char* into, int64_t bytes) = 0;
};

class PlainInput : public ByteInput {
 public:
  PlainInput(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  ~PlainInput() override { ::close(descriptor_); }
  PlainInput(const PlainInput&) = delete;
  PlainInput& operator=(const PlainInput&) = delete;

  Result<int64_t> read(char* into, int64_t bytes) override {
    for (;;) {
      ssize_t got = ::read(descriptor_, into, static_cast<size_t>(bytes));
      if (got >= 0) return static_cast<int64_t>(got);
      if (errno != EINTR) return system_error("cannot read", path_, errno);
    }
  }

 private:
  std::filesystem::path path_;
  int descriptor_;
};

class GzipInput : public ByteInput {
 public:
  GzipInput(std::filesystem::path path, gzFile file) : path_(std::move(path)), file_(file) {}
  ~GzipInput() override { gzclose(file_); }
  GzipInput(const GzipInput&) = delete;
  GzipInput& operator=(const GzipInput&) = delete;

  Result<int64_t> read(char* into, int64_t bytes) override {
    int got = gzread(file_, into, static_cast<unsigned>(bytes));
    int code = Z_OK;
    const char* text = gzerror(file_, &code);
    if (got < 0 || (got == 0 && code != Z_OK && code != Z_STREAM_END))
      return make_error(ErrorCode::data_loss, "{}: the gzip file is damaged or cut off ({})", path_.string(),
                        text);
    return static_cast<int64_t>(got);
  }

 private:
  std::filesystem::path path_;
  gzFile file_;
};

int64_t count_lines(const char* from, const char* to) {
  return std::count(from, to, '\n');
}

class LineInput : public TextInput {
 public:
  LineInput(std::filesystem::path path, std::unique_ptr<ByteInput> input, ByteRange range)
      : path_(std::move(path)), input_(std::move(input)), range_(range), buffer_(kPieceBytes + kScanPadding) {
    buffer_start_ = std::max<int64_t>(0, range.begin - 1);
    skip_to_line_ = range.begin > 0;
  }

  Result<std::string_view> next() override {
    lines_before_ += count_lines(piece_.data(), piece_.data() + piece_.size());
    for (;;) {
      keep_rest();
      if (finished_) return piece_ = {};
      TESSERA_RETURN_IF_ERROR(fill());
      if (skip_to_line_ && !skip_first()) continue;
      piece_ = cut_piece();
      if (!piece_.empty() || finished_) return piece_;
    }
  }

  std::string where(const char* at) const override {
    int64_t line = lines_before_ + count_lines(piece_.data(), at) + 1;
    return fmt::format("{}:{}", path_.string(), line + lines_of_skipped_part());
  }

 private:
  // Moves what follows the last piece to the front of the buffer.
  void keep_rest() {
    std::memmove(buffer_.data(), buffer_.data() + used_, static_cast<size_t>(filled_ - used_));
    filled_ -= used_;
    buffer_start_ += used_;
    used_ = 0;
  }

  Status fill() {
    if (capacity() - filled_ < kPieceBytes / 2) buffer_.resize(buffer_.size() * 2);  // one line fills it all
    while (!input_ended_ && filled_ < capacity()) {
      TESSERA_ASSIGN_OR_RETURN(int64_t got, input_->read(buffer_.data() + filled_, capacity() - filled_));
      if (got == 0) end_input();
      filled_ += got;
    }
    return {};
  }

  void end_input() {
    input_ended_ = true;
    if (filled_ > 0 && buffer_[static_cast<size_t>(filled_ - 1)] != '\n')
      buffer_[static_cast<size_t>(filled_++)] = '\n';
  }

  // A range starts one byte early: if that byte ends a line, the range starts with a whole line.
  bool skip_first() {
    const void* end_of_line = std::memchr(buffer_.data(), '\n', static_cast<size_t>(filled_));
    if (end_of_line == nullptr) {
      used_ = filled_;
      finished_ = input_ended_;
      return false;
    }
    used_ = static_cast<const char*>(end_of_line) - buffer_.data() + 1;
    skip_to_line_ = false;
    keep_rest();
    return true;
  }

  std::string_view cut_piece() {
    int64_t limit = filled_;
    if (range_.end >= 0 && buffer_start_ + filled_ >= range_.end) limit = end_of_range();
    const void* last = limit == 0 ? nullptr : ::memrchr(buffer_.data(), '\n', static_cast<size_t>(limit));
    used_ = last == nullptr ? 0 : static_cast<const char*>(last) - buffer_.data() + 1;
    if (input_ended_ && used_ == filled_) finished_ = true;
    return {buffer_.data(), static_cast<size_t>(used_)};
  }

  // Bytes of the buffer up to the end of the last line that starts before the end of the range.
  int64_t end_of_range() {
    int64_t last_start = range_.end - 1 - buffer_start_;
    if (last_start < 0) {
      finished_ = true;
      return 0;
    }
    const void* end_of_line =
        std::memchr(buffer_.data() + last_start, '\n', static_cast<size_t>(filled_ - last_start));
    if (end_of_line == nullptr) return filled_;  // the line goes on in the next piece
    finished_ = true;
    return static_cast<const char*>(end_of_line) - buffer_.data() + 1;
  }

  int64_t capacity() const { return static_cast<int64_t>(buffer_.size()) - kScanPadding; }

  int64_t lines_of_skipped_part() const {
    if (range_.begin <= 0) return 0;
    auto before = LineInput::open(path_, {0, range_.begin});
    int64_t lines = 0;
    while (before.ok()) {
      auto piece = (*before)->next();
      if (!piece.ok() || piece->empty()) break;
      lines += count_lines(piece->data(), piece->data() + piece->size());
    }
    return lines;
  }

  std::filesystem::path path_;
  std::unique_ptr<ByteInput> input_;
  ByteRange range_;
  std::vector<char> buffer_;
  std::string_view piece_;
  int64_t filled_ = 0, used_ = 0;  // bytes of the buffer: with content, in the last piece
  int64_t buffer_start_ = 0;       // offset in the file
  int64_t lines_before_ = 0;
  bool input_ended_ = false, finished_ = false, skip_to_line_ = false;
};

}  // namespace

bool is_gzip(const std::filesystem::path& path) {
  return path.extension() == ".gz";
}

Result<int64_t> file_bytes(const std::filesystem::path& path) {
  std::error_code failure;
  auto bytes = std::filesystem::file_size(path, failure);
  if (failure) return system_error("cannot read", path, failure.value());
  return static_cast<int64_t>(bytes);
}

Result<std::unique_ptr<TextInput>> TextInput::open(const std::filesystem::path& path, ByteRange range) {
  if (is_gzip(path)) {
    if (range.begin > 0 || range.end >= 0)
      return invalid("{}: a part of a gzip file cannot be read; unpack it, or use whole files for each split",
                     path.string());
    gzFile file = gzopen(path.c_str(), "rb");
    if (file == nullptr) return system_error("cannot open", path, errno);
    gzbuffer(file, 1 << 18);
    return std::unique_ptr<TextInput>(
        std::make_unique<LineInput>(path, std::make_unique<GzipInput>(path, file), range));
  }
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return system_error("cannot open", path, errno);
  auto input = std::make_unique<PlainInput>(path, descriptor);
  if (range.begin > 0 && ::lseek(descriptor, range.begin - 1, SEEK_SET) < 0)
    return system_error("cannot seek in", path, errno);
  return std::unique_ptr<TextInput>(std::make_unique<LineInput>(path, std::move(input), range));
}

}  // namespace tessera::recsys_data
