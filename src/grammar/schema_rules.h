// What several JSON schemas ask of one value, put together: those of allOf, of a $ref and what stands beside
// it, of properties that several of them name. Alternatives (anyOf, oneOf) stay apart.
//
// A schema is known by its address in the root schema, which must outlive all this.
// Errors are SchemaError, with the place and the keyword; none leaves this part. Threads: one at a time.
#pragma once

#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "chat/value.h"
#include "grammar/automaton.h"
#include "grammar/number_rules.h"

namespace tessera::grammar {

struct SchemaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void refuse_schema(const std::string& path, const std::string& what);

struct SchemaAt {
  const chat::Value* schema = nullptr;
  std::string path = {};  // in the root: "#/properties/a"
};
using Schemas = std::vector<SchemaAt>;  // all of them hold

enum TypeBit : unsigned {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kNumber = 8,  // with integers
  kString = 16,
  kArray = 32,
  kObject = 64,
  kAnyType = 127,
};

struct ItemRules {
  std::vector<SchemaAt> first;      // of the first items
  std::optional<SchemaAt> further;  // of the others
};
struct PatternRule {
  std::string pattern;
  SchemaAt schema;
};
struct PropertyRules {
  const chat::Dict* named = nullptr;  // `properties` of the schema; none: no names
  std::string named_path = {};
  std::vector<PatternRule> patterns;
  std::optional<SchemaAt> further;  // of other properties; none: any, but none are written beside named ones

  bool has_names() const { return named && named->size() > 0; }
  // Of the property of this name; nothing when it has none.
  std::optional<SchemaAt> find(const std::string& name) const;
};
struct Alternatives {
  Schemas schemas;
  bool exactly_one;
  std::string path;
};

struct SchemaRules {
  bool never = false;
  unsigned types = kAnyType;
  bool has_types = false;
  unsigned implied = 0;                            // types of its keywords, for a schema without a type
  std::optional<std::vector<chat::Value>> values;  // enum and const
  NumberRules numbers;
  int64_t min_length = 0, max_length = -1;                    // -1: any
  std::vector<std::pair<std::string, std::string>> patterns;  // and the place
  int64_t min_items = 0, max_items = -1;
  bool unique_items = false;
  std::vector<ItemRules> items;
  std::vector<PropertyRules> properties;
  std::vector<std::string> required;
  Schemas names;  // of properties, as texts
  int64_t min_properties = 0, max_properties = -1;
  std::vector<Alternatives> alternatives;
  std::string path;  // of the first schema, for messages

  // What a text of these rules can be; of a schema that does not say, the types of its keywords.
  unsigned written_types() const;
};

class SchemaReader {
 public:
  explicit SchemaReader(const chat::Value& root) : root_(root) {}

  SchemaRules read(const Schemas& schemas);
  // What a schema refers to that is nothing but a reference; else itself.
  SchemaAt resolved(SchemaAt schema) const;
  // Adds one more schema to what is known.
  void add(const SchemaAt& schema, SchemaRules& rules);
  // Does the value satisfy all of them?
  bool takes(const Schemas& schemas, const chat::Value& value);
  bool takes(const SchemaRules& rules, const chat::Value& value);

  // The automaton of a pattern, kept. Throws SchemaError.
  const Automaton& pattern(const std::string& regex, const std::string& path);
  // What the property of this name must satisfy; for names that no schema knows, what further ones must.
  Schemas schemas_of(const SchemaRules& rules, const std::string& name);

 private:
  void add_keyword(const std::string& key, const chat::Value& value, const SchemaAt& at, SchemaRules& rules);
  SchemaAt target_of(const chat::Value& reference, const std::string& path) const;
  bool takes_now(const SchemaRules& rules, const chat::Value& value);
  bool takes_object(const SchemaRules& rules, const chat::Dict& value);
  bool takes_array(const SchemaRules& rules, const std::vector<chat::Value>& items);
  bool takes_text(const SchemaRules& rules, const std::string& text);

  const chat::Value& root_;
  std::map<std::string, Automaton> patterns_;
  int depth_ = 0, takes_depth_ = 0;
  int64_t read_ = 0;
};

unsigned type_of(const chat::Value& value);  // one bit; kInteger also for 1.0

}  // namespace tessera::grammar
