// What roles say to each other, as bytes: plain values, and arrays of them behind their count, as they lie in
// memory (little-endian). A reader never goes past the end: what is missing reads as zero, and end() says so.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "comm/group.h"

namespace tessera::recsys_roles {

using Message = std::vector<std::byte>;

class MessageWriter {
 public:
  template <class T>
  MessageWriter& value(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return append(std::as_bytes(std::span(&value, 1)));
  }
  template <class T>
  MessageWriter& array(std::span<const T> values) {
    value(static_cast<uint64_t>(values.size()));
    return append(std::as_bytes(values));
  }
  template <class T>
  MessageWriter& array(const std::vector<T>& values) {
    return array(std::span<const T>(values));
  }
  MessageWriter& text(const std::string& text) { return array(std::span<const char>(text)); }
  Message take() { return std::move(bytes_); }

 private:
  MessageWriter& append(Bytes bytes) {
    const size_t before = bytes_.size();
    bytes_.resize(before + bytes.size());
    if (!bytes.empty()) std::memcpy(bytes_.data() + before, bytes.data(), bytes.size());
    return *this;
  }
  Message bytes_;
};

class MessageReader {
 public:
  explicit MessageReader(Bytes bytes) : rest_(bytes) {}

  template <class T>
  T value() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    copy(&value, sizeof value);
    return value;
  }
  template <class T>
  void array(std::vector<T>& values) {
    auto count = value<uint64_t>();
    short_ = short_ || count > rest_.size() / sizeof(T);
    values.resize(short_ ? 0 : count);
    copy(values.data(), values.size() * sizeof(T));
  }
  template <class T>
  std::vector<T> array() {
    std::vector<T> values;
    array(values);
    return values;
  }
  // An array of known length, into memory of the caller.
  template <class T>
  void array_into(std::span<T> values) {
    short_ = short_ || value<uint64_t>() != values.size();
    copy(values.data(), values.size_bytes());
  }
  std::string text() {
    auto letters = array<char>();
    return {letters.begin(), letters.end()};
  }
  bool missing() const { return short_; }
  // REQUIRES: everything has been read.
  Status end() const {
    if (!short_ && rest_.empty()) return {};
    return make_error(ErrorCode::data_loss, "a message of another form: {}",
                      short_ ? "it is too short" : "there are bytes left over");
  }

 private:
  void copy(void* to, size_t bytes) {
    short_ = short_ || bytes > rest_.size();
    if (short_ || bytes == 0) return;
    std::memcpy(to, rest_.data(), bytes);
    rest_ = rest_.subspan(bytes);
  }
  Bytes rest_;
  bool short_ = false;
};

inline void write_texts(const std::vector<std::string>& texts, MessageWriter& writer) {
  writer.value(static_cast<uint64_t>(texts.size()));
  for (const std::string& text : texts) writer.text(text);
}
// Stops at the end of the message, whatever the count says.
inline void read_texts(MessageReader& reader, std::vector<std::string>& texts) {
  texts.clear();
  for (auto count = reader.value<uint64_t>(); count > 0 && !reader.missing(); --count)
    texts.push_back(reader.text());
}

}  // namespace tessera::recsys_roles
