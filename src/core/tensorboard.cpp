#include "core/tensorboard.h"

#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <string>

#include "core/clock.h"
#include "core/crc32c.h"
#include "core/file.h"

namespace tessera {
namespace {

template <class T>
void append_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>((value >> (8 * i)) & 0xff);
}

// ---- protobuf: a field is its number and wire type, then the value ----
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void append_tag(std::string& out, uint32_t field, WireType type) {
  append_varint(out, field << 3 | type);
}
void append_double(std::string& out, uint32_t field, double value) {
  append_tag(out, field, kFixed64);
  append_little_endian(out, std::bit_cast<uint64_t>(value));
}
void append_float(std::string& out, uint32_t field, float value) {
  append_tag(out, field, kFixed32);
  append_little_endian(out, std::bit_cast<uint32_t>(value));
}
void append_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  append_tag(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

// Event: wall_time = 1, step = 2, file_version = 3, summary = 5.
std::string event_head(int64_t step) {
  std::string event;
  append_double(event, 1, unix_time());
  append_tag(event, 2, kVarint);
  append_varint(event, static_cast<uint64_t>(step));
  return event;
}

// Summary: value = 1; Summary.Value: tag = 1, simple_value = 2.
std::string scalar_event(std::string_view tag, double value, int64_t step) {
  std::string point, summary, event = event_head(step);
  append_bytes(point, 1, tag);
  append_float(point, 2, static_cast<float>(value));
  append_bytes(summary, 1, point);
  append_bytes(event, 5, summary);
  return event;
}

std::string file_name() {
  static std::atomic<int> opened{0};  // two files of one second and process must differ
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  return fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<int64_t>(unix_time()), host,
                     static_cast<int>(::getpid()), opened++);
}

}  // namespace

Result<std::unique_ptr<TensorBoardWriter>> TensorBoardWriter::open(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return system_error("create folder", folder, error.value());
  std::filesystem::path path = folder / file_name();
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  if (!file) return system_error("open", path, errno);
  std::unique_ptr<TensorBoardWriter> writer(new TensorBoardWriter(path, file));
  std::string event = event_head(0);
  append_bytes(event, 3, "brain.Event:2");
  TESSERA_RETURN_IF_ERROR(writer->write_record(event));
  TESSERA_RETURN_IF_ERROR(writer->flush());
  return writer;
}

TensorBoardWriter::~TensorBoardWriter() {
  std::fclose(file_);
}

Status TensorBoardWriter::scalar(std::string_view tag, double value, int64_t step) {
  return write_record(scalar_event(tag, value, step));
}

Status TensorBoardWriter::flush() {
  if (std::fflush(file_) != 0) return system_error("write", path_, errno);
  return {};
}

// A record: length (8 bytes), its masked CRC (4), the event, its masked CRC (4); little endian.
Status TensorBoardWriter::write_record(std::string_view event) {
  std::string record;
  append_little_endian(record, static_cast<uint64_t>(event.size()));
  append_little_endian(record, masked_crc32c(record));
  record += event;
  append_little_endian(record, masked_crc32c(event));
  if (std::fwrite(record.data(), 1, record.size(), file_) != record.size())
    return system_error("write", path_, errno);
  return {};
}

}  // namespace tessera
