#include "data/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "core/file.h"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic("MMIDIDX\0\0", 9);
constexpr uint64_t kVersion = 1;
constexpr size_t kTypeAt = 17, kSequencesAt = 18, kDocumentsAt = 26, kLengthsAt = 34;

fs::path with_suffix(const fs::path& prefix, const char* suffix) {
  return fs::path(prefix.string() + suffix);
}

int64_t bytes_per(TokenType type) {
  return type == TokenType::uint16 ? 2 : 4;
}

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

// ---- writing ----

Result<TokenFileWriter> TokenFileWriter::create(const fs::path& prefix, int64_t vocab_size) {
  TokenFileWriter writer(prefix, vocab_size, nullptr);
  writer.file_ = std::fopen(writer.temporary().c_str(), "wbe");
  if (writer.file_ == nullptr) return system_error("create", writer.temporary(), errno);
  return writer;
}

TokenFileWriter::TokenFileWriter(fs::path prefix, int64_t vocab_size, std::FILE* file)
    : prefix_(std::move(prefix)), vocab_size_(vocab_size), type_(token_type_for(vocab_size)), file_(file) {}

TokenFileWriter::TokenFileWriter(TokenFileWriter&& other) noexcept
    : prefix_(std::move(other.prefix_)),
      vocab_size_(other.vocab_size_),
      type_(other.type_),
      file_(std::exchange(other.file_, nullptr)),
      lengths_(std::move(other.lengths_)),
      num_tokens_(other.num_tokens_) {}

TokenFileWriter::~TokenFileWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  ::unlink(temporary().c_str());
}

fs::path TokenFileWriter::temporary() const {
  return fs::path(fmt::format("{}.bin.tmp-{}", prefix_.string(), ::getpid()));
}

Status TokenFileWriter::add_document(std::span<const int64_t> ids) {
  if (ids.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    return invalid("document {} has {} tokens, the format's limit is 2^31 - 1", num_documents(), ids.size());
  buffer_.resize(ids.size() * static_cast<size_t>(bytes_per(type_)));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size_)
      return invalid("document {}: token {} at {} is outside the vocabulary of {}", num_documents(), ids[i], i,
                     vocab_size_);
    auto small = static_cast<uint16_t>(ids[i]);
    auto wide = static_cast<int32_t>(ids[i]);
    if (type_ == TokenType::uint16) std::memcpy(buffer_.data() + 2 * i, &small, 2);
    if (type_ == TokenType::int32) std::memcpy(buffer_.data() + 4 * i, &wide, 4);
  }
  if (std::fwrite(buffer_.data(), 1, buffer_.size(), file_) != buffer_.size())
    return system_error("write", temporary(), errno);
  lengths_.push_back(static_cast<int32_t>(ids.size()));
  num_tokens_ += static_cast<int64_t>(ids.size());
  return {};
}

std::string TokenFileWriter::index() const {
  std::string out(kMagic);
  append(out, kVersion);
  append(out, static_cast<uint8_t>(type_));
  append(out, static_cast<uint64_t>(lengths_.size()));
  append(out, static_cast<uint64_t>(lengths_.size() + 1));
  for (int32_t length : lengths_) append(out, length);
  int64_t offset = 0;
  for (int32_t length : lengths_) {
    append(out, offset);
    offset += length * bytes_per(type_);
  }
  for (int64_t i = 0; i <= num_documents(); ++i) append(out, i);
  return out;
}

Status TokenFileWriter::finish() {
  bool flushed = std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  if (!flushed) return system_error("write", temporary(), errno);
  // An old .idx beside a new .bin would be a torn pair: it goes first.
  ::unlink(with_suffix(prefix_, ".idx").c_str());
  if (::rename(temporary().c_str(), with_suffix(prefix_, ".bin").c_str()) != 0)
    return system_error("rename", temporary(), errno);
  std::fclose(std::exchange(file_, nullptr));
  return write_file_atomically(with_suffix(prefix_, ".idx"), index());
}

// ---- reading ----

class TokenFile::Mapping {
 public:
  Mapping(void* address, size_t size) : address_(address), size_(size) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (size_ > 0) ::munmap(address_, size_);
  }
  const std::byte* data() const { return static_cast<const std::byte*>(address_); }
  size_t size() const { return size_; }

 private:
  void* address_;
  size_t size_;
};

Result<std::shared_ptr<const TokenFile::Mapping>> TokenFile::map(const fs::path& path) {
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return system_error("open", path, errno);
  struct stat info {};
  int failed = ::fstat(file, &info);
  size_t size = failed == 0 ? static_cast<size_t>(info.st_size) : 0;
  void* address = size == 0 ? nullptr : ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  int number = errno;
  ::close(file);
  if (failed != 0 || address == MAP_FAILED) return system_error("map", path, number);
  return std::shared_ptr<const Mapping>(std::make_shared<Mapping>(address, size));
}

Result<TokenFile> TokenFile::open(const fs::path& prefix) {
  TokenFile file;
  file.prefix_ = prefix;
  TESSERA_ASSIGN_OR_RETURN(file.index_, map(with_suffix(prefix, ".idx")));
  TESSERA_ASSIGN_OR_RETURN(file.tokens_, map(with_suffix(prefix, ".bin")));
  TESSERA_RETURN_IF_ERROR(file.read_header());
  TESSERA_RETURN_IF_ERROR(file.check_sequences());
  return file;
}

const std::byte* TokenFile::index_at(size_t byte) const {
  return index_->data() + byte;
}

Status TokenFile::read_header() {
  std::string name = with_suffix(prefix_, ".idx").string();
  auto torn = [&](const std::string& what) { return make_error(ErrorCode::data_loss, "{}: {}", name, what); };
  size_t size = index_->size();
  if (size < kLengthsAt)
    return torn(fmt::format("has {} bytes, a token index has at least {}; pack again", size, kLengthsAt));
  if (std::memcmp(index_at(0), kMagic.data(), kMagic.size()) != 0)
    return torn("does not begin with MMIDIDX: no Megatron token index");
  if (auto version = load<uint64_t>(index_at(9)); version != kVersion)
    return torn(fmt::format("has version {}, expected {}", version, kVersion));
  type_ = static_cast<TokenType>(load<uint8_t>(index_at(kTypeAt)));
  if (type_ != TokenType::uint16 && type_ != TokenType::int32)
    return torn(
        fmt::format("has tokens of kind {}, expected 8 (uint16) or 4 (int32)", static_cast<int>(type_)));
  auto sequences = load<uint64_t>(index_at(kSequencesAt)), documents = load<uint64_t>(index_at(kDocumentsAt));
  // Compared before multiplied: counts of a damaged file may be anything.
  bool plausible = sequences <= size && documents <= size && documents >= 1;
  if (!plausible || size != kLengthsAt + sequences * 12 + documents * 8)
    return torn(
        fmt::format("has {} bytes, which is not what {} sequences and {} document borders take; it is torn, "
                    "pack again",
                    size, sequences, documents));
  num_sequences_ = static_cast<int64_t>(sequences);
  num_documents_ = static_cast<int64_t>(documents) - 1;
  return {};
}

Status TokenFile::check_sequences() {
  std::string name = prefix_.string();
  auto available = static_cast<int64_t>(tokens_->size());
  int64_t expected = 0;
  for (int64_t i = 0; i < num_sequences_; ++i) {
    int64_t tokens = length_of_sequence(i), begin = offset_of_sequence(i);
    if (tokens < 0 || begin != expected)
      return make_error(ErrorCode::data_loss, "{}.idx: sequence {} has {} tokens at byte {}, expected byte {}",
                        name, i, tokens, begin, expected);
    expected += tokens * bytes_per(type_);
    num_tokens_ += tokens;
  }
  if (expected != available)
    return make_error(ErrorCode::data_loss,
                      "{}.bin: has {} bytes but {}.idx says {}; it is torn or of another run, pack again", name,
                      available, name, expected);
  size_t borders = kLengthsAt + static_cast<size_t>(num_sequences_) * 12;
  int64_t last = 0;
  for (int64_t i = 0; i <= num_documents_; ++i) {
    auto border = load<int64_t>(index_at(borders + static_cast<size_t>(i) * 8));
    bool edge_is_wrong = (i == 0 && border != 0) || (i == num_documents_ && border != num_sequences_);
    if (border < last || edge_is_wrong)
      return make_error(ErrorCode::data_loss, "{}.idx: document {} begins at sequence {} of {}", name, i,
                        border, num_sequences_);
    last = border;
  }
  return {};
}

int64_t TokenFile::length_of_sequence(int64_t sequence) const {
  return load<int32_t>(index_at(kLengthsAt + static_cast<size_t>(sequence) * 4));
}

int64_t TokenFile::offset_of_sequence(int64_t sequence) const {
  auto offsets = kLengthsAt + static_cast<size_t>(num_sequences_) * 4;
  return load<int64_t>(index_at(offsets + static_cast<size_t>(sequence) * 8));
}

int64_t TokenFile::start(int64_t document) const {
  auto borders = kLengthsAt + static_cast<size_t>(num_sequences_) * 12;
  auto sequence = load<int64_t>(index_at(borders + static_cast<size_t>(document) * 8));
  return sequence == num_sequences_ ? num_tokens_ : offset_of_sequence(sequence) / bytes_per(type_);
}

void TokenFile::read(int64_t document, int64_t from, std::span<int64_t> out) const {
  auto count = static_cast<int64_t>(out.size());
  TESSERA_REQUIRE(document >= 0 && document < num_documents_ && from >= 0 && from + count <= length(document),
                  "{}: document {} of {} has no tokens {} to {}", prefix_.string(), document, num_documents_,
                  from, from + count);
  const std::byte* first = tokens_->data() + (start(document) + from) * bytes_per(type_);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = type_ == TokenType::uint16 ? int64_t{load<uint16_t>(first + 2 * i)}
                                        : int64_t{load<int32_t>(first + 4 * i)};
}

std::vector<int64_t> TokenFile::counts_by_id() const {
  std::vector<int64_t> counts, tokens;
  for (int64_t document = 0; document < num_documents_; ++document) {
    tokens.resize(static_cast<size_t>(length(document)));
    read(document, 0, tokens);
    for (int64_t id : tokens) {
      // A negative id (int32 files of others) is counted nowhere.
      if (id < 0) continue;
      if (static_cast<size_t>(id) >= counts.size()) counts.resize(static_cast<size_t>(id) + 1);
      ++counts[static_cast<size_t>(id)];
    }
  }
  return counts;
}

}  // namespace tessera::data
