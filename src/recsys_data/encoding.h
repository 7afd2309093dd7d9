// How the values of a row, as a log or a client gives them, become the numbers and ids that a model is trained
// on. Readers say it of each feature, an exported model keeps it, and a server does the same to a request, with
// the same bits.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "recsys_data/batch.h"

namespace tessera::recsys_data {

// A value as it is given; the first is one that is not known.
using RawValue = std::variant<std::monostate, int64_t, double, std::string_view>;

struct NumberEncoding {
  enum class Kind : uint8_t {
    plain,     // as it is
    standard,  // (x - mean) * scale
    log1p,     // log(1 + x) of whole numbers x > 0, else 0
  };
  Kind kind = Kind::plain;
  double mean = 0, scale = 1;
};

struct IdEncoding {
  enum class Kind : uint8_t {
    text,    // id_of_text(); "" and "?" are missing
    below,   // whole numbers below `cardinality`: 1 + the number
    hex32,   // eight hexadecimal digits: 1 + their value
    number,  // the number itself
  };
  Kind kind = Kind::text;
  int64_t cardinality = 0;
  bool several = false;  // a row has any number of ids, else exactly one
};

// Id of a text: 1 + the low 56 bits of its XXH3 hash, so that 8 bits are left to tell slots apart.
uint64_t id_of_text(std::string_view text);

// Texts are read as in a file. Errors say what was got and expected, without the name of the feature.
Result<float> encode(const NumberEncoding& encoding, const RawValue& value);
Result<uint64_t> encode(const IdEncoding& encoding, const RawValue& value);

// The transformation of a number that has been read, for kinds plain and standard; missing ones are 0 before
// it.
float encoded(const NumberEncoding& encoding, float value);
// The same for kind log1p.
float log1p_of_count(int64_t count);

// Of the features of a row, in their order.
struct FeatureEncodings {
  std::vector<NumberEncoding> numbers;
  std::vector<IdEncoding> ids;
};

// The features of a model that is served.
struct EncodedFeatures : Features {
  std::vector<NumberEncoding> number_encodings;  // of each number
  std::vector<IdEncoding> id_encodings;          // of each slot

  void add_number(std::string name, NumberEncoding encoding) {
    numeric.push_back(std::move(name));
    number_encodings.push_back(encoding);
  }
  void add_slot(std::string name, IdEncoding encoding) {
    slots.push_back(std::move(name));
    id_encodings.push_back(encoding);
  }
};

// A source (batch.h) that knows them. All readers here do; one that does not cannot be served.
class EncodedSource {
 public:
  virtual ~EncodedSource() = default;
  virtual const FeatureEncodings& encodings() const = 0;
};

const char* to_string(NumberEncoding::Kind kind);
const char* to_string(IdEncoding::Kind kind);
Result<NumberEncoding::Kind> parse_number_encoding(std::string_view text);
Result<IdEncoding::Kind> parse_id_encoding(std::string_view text);

}  // namespace tessera::recsys_data
