#include "checkpoint/gguf.h"

#include <cstring>
#include <fstream>
#include <numeric>

#include "checkpoint/guard.h"
#include "core/nearest.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kGgufMagic[] = {'G', 'G', 'U', 'F'};
constexpr int kNesting = 4;  // arrays in arrays
constexpr uint64_t kMostDimensions = 4;
constexpr int64_t kMostElements = int64_t{1} << 40;

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

// Takes values off the front of the file; throws an Error where it ends too soon.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  template <class T>
  T take(const char* what) {
    T value;
    std::memcpy(&value, need(sizeof(T), what), sizeof(T));
    return value;
  }
  std::string text(const char* what) {
    const auto size = take<uint64_t>(what);
    return {static_cast<const char*>(need(size, what)), static_cast<size_t>(size)};
  }
  // A count of things that take at least `least` bytes each.
  uint64_t count(uint64_t least, const char* what) {
    const auto number = take<uint64_t>(what);
    if (number > left() / least) torn(what);
    return number;
  }
  [[noreturn]] void torn(const char* what) const {
    throw make_error(ErrorCode::data_loss, "{} at byte {} goes past the end of {} bytes; the file is torn",
                     what, at_, bytes_.size());
  }

 private:
  const void* need(uint64_t size, const char* what) {
    if (size > left()) torn(what);
    const void* here = bytes_.data() + at_;
    at_ += static_cast<size_t>(size);
    return here;
  }
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

json value_of(Reader& reader, uint32_t type, int depth);

json array_of(Reader& reader, int depth) {
  const auto type = reader.take<uint32_t>("the type of an array");
  const uint64_t count = reader.count(1, "an array");
  json values = json::array();
  values.get_ref<json::array_t&>().reserve(static_cast<size_t>(count));
  for (uint64_t i = 0; i < count; ++i) values.push_back(value_of(reader, type, depth + 1));
  return values;
}

json value_of(Reader& reader, uint32_t type, int depth) {
  constexpr const char* kValue = "a value";
  switch (type) {
    case u8:
      return reader.take<uint8_t>(kValue);
    case i8:
      return reader.take<int8_t>(kValue);
    case u16:
      return reader.take<uint16_t>(kValue);
    case i16:
      return reader.take<int16_t>(kValue);
    case u32:
      return reader.take<uint32_t>(kValue);
    case i32:
      return reader.take<int32_t>(kValue);
    case f32:
      return reader.take<float>(kValue);
    case boolean:
      return reader.take<uint8_t>(kValue) != 0;
    case string:
      return reader.text("a text");
    case u64:
      return reader.take<uint64_t>(kValue);
    case i64:
      return reader.take<int64_t>(kValue);
    case f64:
      return reader.take<double>(kValue);
    case array:
      if (depth < kNesting) return array_of(reader, depth);
      [[fallthrough]];
    default:
      throw make_error(ErrorCode::data_loss, "metadata of type {} before byte {}; the file is damaged", type,
                       reader.at());
  }
}

GgufTensor tensor_of(Reader& reader, const std::string& name) {
  const auto dimensions = reader.take<uint32_t>("a tensor");
  if (dimensions < 1 || dimensions > kMostDimensions)
    throw make_error(ErrorCode::data_loss, "tensor {} has {} dimensions, expected 1 to {}", name, dimensions,
                     kMostDimensions);
  GgufTensor tensor;
  int64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader.take<uint64_t>("a tensor");
    if (size < 1 || size > static_cast<uint64_t>(kMostElements / elements))
      throw make_error(ErrorCode::data_loss, "tensor {} has the size {} in dimension {}", name, size, i);
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    elements *= static_cast<int64_t>(size);
  }
  auto type = gguf_type(reader.take<uint32_t>("a tensor"));
  if (!type) throw type.error().within(fmt::format("tensor {}", name));
  tensor.type = *type;
  if (tensor.width() % block_elements(*type) != 0)
    throw make_error(ErrorCode::data_loss, "tensor {} of {} has rows of {}, no multiple of {}", name,
                     to_string(*type), tensor.width(), block_elements(*type));
  const auto offset = reader.take<uint64_t>("a tensor");
  if (offset > static_cast<uint64_t>(kMostElements)) reader.torn("a tensor's data");
  tensor.begin = static_cast<int64_t>(offset);
  return tensor;
}

void check_head(Reader& reader) {
  char magic[4];
  for (char& c : magic) c = reader.take<char>("the magic");
  if (std::memcmp(magic, kGgufMagic, sizeof magic) != 0)
    throw make_error(ErrorCode::data_loss, "the file does not begin with GGUF: it is no GGUF file, or torn");
  const auto version = reader.take<uint32_t>("the version");
  if (version == 2 || version == 3) return;
  const uint32_t turned = __builtin_bswap32(version);
  const bool swapped = turned >= 1 && turned <= 3;
  throw invalid("GGUF version {}; versions 2 and 3 in little endian are read",
                swapped ? "in big endian" : std::to_string(version));
}

}  // namespace

int64_t GgufTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

bool GgufFile::is_at(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::memcmp(magic, kGgufMagic, sizeof magic) == 0 || path.extension() == ".gguf";
}

Result<GgufFile> GgufFile::open(const fs::path& path) {
  return guarded(path.string(), [&]() -> Result<GgufFile> {
    TESSERA_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::open(path));
    GgufFile file(path, std::move(mapped));
    Reader reader(file.file_.bytes());
    try {
      check_head(reader);
      const uint64_t tensors = reader.count(24, "the count of tensors");
      const uint64_t keys = reader.count(13, "the count of metadata");
      for (uint64_t i = 0; i < keys; ++i) {
        std::string key = reader.text("a key");
        const auto type = reader.take<uint32_t>("the type of a value");
        file.metadata_[key] = value_of(reader, type, 0);
      }
      for (uint64_t i = 0; i < tensors; ++i) {
        std::string name = reader.text("a tensor's name");
        GgufTensor tensor = tensor_of(reader, name);
        file.tensors_[name] = std::move(tensor);
      }
      const json& given = file.metadata_.value("general.alignment", json(32));
      const int64_t alignment = given.is_number_integer() ? given.get<int64_t>() : 0;
      if (alignment < 1 || alignment > 1 << 20)
        throw make_error(ErrorCode::data_loss, "general.alignment is {}", given.dump());
      const auto head = static_cast<int64_t>(reader.at());
      const int64_t data = (head + alignment - 1) / alignment * alignment;
      for (auto& [name, tensor] : file.tensors_) {
        tensor.begin += data;
        const int64_t bytes = tensor.elements() / tensor.width() * tensor.row_bytes();
        if (tensor.begin + bytes > std::ssize(file.file_.bytes()))
          throw make_error(ErrorCode::data_loss, "tensor {} ends at byte {} of {}; the file is torn", name,
                           tensor.begin + bytes, file.file_.bytes().size());
      }
      return file;
    } catch (const Error& error) {
      return error.within(path.string());
    }
  });
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::span<const uint8_t> GgufFile::row(const GgufTensor& tensor, int64_t row) const {
  TESSERA_REQUIRE(row >= 0 && row < tensor.elements() / tensor.width(), "row {} of {}", row,
                  tensor.elements() / tensor.width());
  const auto* data = reinterpret_cast<const uint8_t*>(file_.bytes().data());
  return {data + tensor.begin + row * tensor.row_bytes(), static_cast<size_t>(tensor.row_bytes())};
}

}  // namespace tessera::checkpoint
