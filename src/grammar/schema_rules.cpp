#include "grammar/schema_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "chat/characters.h"
#include "grammar/formats.h"
#include "grammar/regex.h"

namespace tessera::grammar {

using chat::Dict;
using chat::Value;

namespace {

constexpr int64_t kMaxItems = 1000, kMaxLength = 10'000, kMaxProperties = 1000;
constexpr int64_t kMaxSchemas = 50'000;
constexpr int kMaxDepth = 100, kMaxTakesDepth = 500;

bool one_of_names(const std::string& name, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* known) { return name == known; });
}

// Keywords that restrict nothing.
bool is_annotation(const std::string& key) {
  return one_of_names(key, {"title",           "description",      "default",       "examples",
                            "example",         "$schema",          "$id",           "$comment",
                            "$defs",           "definitions",      "deprecated",    "readOnly",
                            "writeOnly",       "strict",           "discriminator", "nullable",
                            "contentEncoding", "contentMediaType", "xml",           "externalDocs"}) ||
         key.starts_with("x-");
}

unsigned type_named(const Value& name, const std::string& path) {
  constexpr std::pair<const char*, unsigned> kTypes[] = {
      {"null", kNull},     {"boolean", kBoolean}, {"integer", kInteger}, {"number", kNumber | kInteger},
      {"string", kString}, {"array", kArray},     {"object", kObject}};
  for (auto [text, bits] : kTypes)
    if (name.text() && *name.text() == text) return bits;
  refuse_schema(path, "type must be string, number, integer, boolean, null, object, array or a list of these");
}

unsigned types_named(const Value& type, const std::string& path) {
  if (!type.sequence()) return type_named(type, path);
  if (type.sequence()->items.empty()) refuse_schema(path, "type must not be empty");
  unsigned out = 0;
  for (const Value& name : type.sequence()->items) out |= type_named(name, path);
  return out;
}

int64_t count_named(const std::string& key, const Value& value, int64_t limit, const std::string& path) {
  bool whole = value.is_integer() || (value.is_float() && value.number() == std::floor(value.number()));
  if (!whole || value.number() < 0 || value.number() > static_cast<double>(limit))
    refuse_schema(path, fmt::format("'{}' must be an integer from 0 to {}", key, limit));
  return static_cast<int64_t>(value.number());
}

void at_least(int64_t& own, int64_t value) {
  own = std::max(own, value);
}
void at_most(int64_t& own, int64_t value) {
  own = own < 0 ? value : std::min(own, value);
}

const Dict& object_named(const std::string& key, const Value& value, const std::string& path) {
  if (!value.dict()) refuse_schema(path, fmt::format("{} must be an object", key));
  return *value.dict();
}

const std::vector<Value>& list_named(const std::string& key, const Value& value, const std::string& path) {
  if (!value.sequence() || value.sequence()->items.empty())
    refuse_schema(path, fmt::format("{} must be a list that is not empty", key));
  return value.sequence()->items;
}

Decimal decimal_named(const std::string& key, const Value& value, const std::string& path) {
  auto out = to_decimal(value);
  if (!out) refuse_schema(path, fmt::format("'{}' must be a number", key));
  return *out;
}

std::string child(const std::string& path, const std::string& key) {
  std::string name = key.substr(0, 50);
  return fmt::format("{}/{}", path, name);
}

unsigned implied_by(const std::string& key) {
  if (one_of_names(key, {"properties", "required", "additionalProperties", "patternProperties", "propertyNames",
                         "minProperties", "maxProperties", "unevaluatedProperties"}))
    return kObject;
  if (one_of_names(key, {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"}))
    return kArray;
  if (one_of_names(key, {"minLength", "maxLength", "pattern"})) return kString;
  if (one_of_names(key, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}))
    return kNumber | kInteger;
  return 0;
}

void read_bound(const std::string& key, const Value& value, const SchemaAt& at, SchemaRules& rules) {
  bool is_least = key == "minimum" || key == "exclusiveMinimum", excludes = key.starts_with("exclusive");
  // Draft 4 has true here, beside the bound itself.
  if (excludes && value.is_bool()) {
    const Value* bound = at.schema->dict()->find(is_least ? "minimum" : "maximum");
    if (!value.truth()) return;
    if (!bound) refuse_schema(at.path, fmt::format("'{}' without the bound", key));
    return read_bound(key, *bound, at, rules);
  }
  NumberRules more;
  (is_least ? more.least : more.most) = Bound{decimal_named(key, value, at.path), !excludes};
  rules.numbers.add(more);
}

void read_values(const std::vector<Value>& values, SchemaRules& rules) {
  if (!rules.values) {
    rules.values = values;
    return;
  }
  std::erase_if(*rules.values, [&](const Value& own) {
    return std::none_of(values.begin(), values.end(), [&](const Value& other) {
      return type_of(own) == type_of(other) && equal(own, other);
    });
  });
}

void read_items(const SchemaAt& at, SchemaRules& rules) {
  const Dict& schema = *at.schema->dict();
  const Value *first = schema.find("prefixItems"), *items = schema.find("items");
  const Value* further = items;
  ItemRules out;
  if (items && items->sequence()) {  // drafts before 2020
    first = items;
    further = schema.find("additionalItems");
  }
  if (first) {
    const auto& list = list_named("prefixItems", *first, at.path);
    const char* name = first == items ? "items" : "prefixItems";
    for (size_t i = 0; i < list.size(); ++i)
      out.first.push_back({&list[i], fmt::format("{}/{}/{}", at.path, name, i)});
  }
  if (further) out.further = SchemaAt{further, child(at.path, further == items ? "items" : "additionalItems")};
  rules.items.push_back(std::move(out));
}

void read_properties(const SchemaAt& at, SchemaRules& rules) {
  const Dict& schema = *at.schema->dict();
  PropertyRules out;
  if (const Value* named = schema.find("properties")) {
    out.named = &object_named("properties", *named, at.path);
    out.named_path = at.path + "/properties";
  }
  if (const Value* patterns = schema.find("patternProperties"))
    for (const auto& [pattern, value] : object_named("patternProperties", *patterns, at.path).items())
      out.patterns.push_back(
          {*pattern.text(), {&value, child(at.path + "/patternProperties", *pattern.text())}});
  const Value* further = schema.find("additionalProperties");
  if (!further) further = schema.find("unevaluatedProperties");
  if (further) out.further = SchemaAt{further, at.path + "/additionalProperties"};
  rules.properties.push_back(std::move(out));
}

}  // namespace

void refuse_schema(const std::string& path, const std::string& what) {
  throw SchemaError(fmt::format("JSON schema at {}: {}", path, what));
}

unsigned type_of(const Value& value) {
  if (value.is_none()) return kNull;
  if (value.is_bool()) return kBoolean;
  if (value.is_text()) return kString;
  if (value.dict()) return kObject;
  if (value.sequence()) return kArray;
  bool whole = value.is_integer() || value.number() == std::floor(value.number());
  return whole ? kInteger : kNumber;
}

std::optional<SchemaAt> PropertyRules::find(const std::string& name) const {
  const Value* schema = named ? named->find(name) : nullptr;
  if (!schema) return std::nullopt;
  return SchemaAt{schema, child(named_path, name)};
}

unsigned SchemaRules::written_types() const {
  return has_types || implied == 0 ? types : types & implied;
}

SchemaRules SchemaReader::read(const Schemas& schemas) {
  SchemaRules out;
  if (!schemas.empty()) out.path = schemas[0].path;
  for (const SchemaAt& schema : schemas) add(schema, out);
  return out;
}

void SchemaReader::add(const SchemaAt& at, SchemaRules& rules) {
  if (++read_ > kMaxSchemas) refuse_schema(at.path, "the schema is too large");
  if (at.schema->is_bool()) {
    rules.never |= !at.schema->truth();
    return;
  }
  const Dict* dict = at.schema->dict();
  if (!dict) refuse_schema(at.path, "a schema must be an object, true or false");
  if (++depth_ > kMaxDepth)
    refuse_schema(at.path, "it refers to itself without anything in between, or too deeply");
  for (const auto& [key, value] : dict->items()) add_keyword(*key.text(), value, at, rules);
  for (auto [least, most] : {std::pair("minLength", "maxLength"), std::pair("minItems", "maxItems"),
                             std::pair("minProperties", "maxProperties"), std::pair("minimum", "maximum")}) {
    const Value *low = dict->find(least), *high = dict->find(most);
    if (low && high && high->number() < low->number())
      refuse_schema(at.path, fmt::format("'{}' is below '{}'", most, least));
  }
  bool has_items = dict->find("items") || dict->find("prefixItems");
  if (has_items) read_items(at, rules);
  for (const char* key : {"properties", "patternProperties", "additionalProperties", "unevaluatedProperties"})
    if (dict->find(key)) {
      read_properties(at, rules);
      break;
    }
  --depth_;
}

void SchemaReader::add_keyword(const std::string& key, const Value& value, const SchemaAt& at,
                               SchemaRules& rules) {
  const std::string& path = at.path;
  rules.implied |= implied_by(key);
  auto step = [&](const Value& schema, size_t i) {
    return SchemaAt{&schema, fmt::format("{}/{}/{}", path, key, i)};
  };
  if (is_annotation(key) || one_of_names(key, {"items", "prefixItems", "additionalItems", "properties",
                                               "patternProperties", "additionalProperties"}))
    return;
  if (key == "type") {
    rules.types &= types_named(value, path);
    rules.has_types = true;
  } else if (key == "$ref") {
    add(target_of(value, path), rules);
  } else if (key == "allOf") {
    const auto& list = list_named(key, value, path);
    for (size_t i = 0; i < list.size(); ++i) add(step(list[i], i), rules);
  } else if (key == "anyOf" || key == "oneOf") {
    Alternatives out{.schemas = {}, .exactly_one = key == "oneOf", .path = path};
    const auto& list = list_named(key, value, path);
    for (size_t i = 0; i < list.size(); ++i) out.schemas.push_back(step(list[i], i));
    rules.alternatives.push_back(std::move(out));
  } else if (key == "const") {
    read_values({value}, rules);
  } else if (key == "enum") {
    read_values(list_named(key, value, path), rules);
  } else if (one_of_names(key, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) {
    read_bound(key, value, at, rules);
  } else if (key == "multipleOf") {
    NumberRules more;
    more.multiple_of = decimal_named(key, value, path);
    if (more.multiple_of->negative || more.multiple_of->is_zero())
      refuse_schema(path, "'multipleOf' must be above 0");
    try {
      rules.numbers.add(more);
    } catch (const std::invalid_argument& error) {
      refuse_schema(path, error.what());
    }
  } else if (key == "minLength") {
    at_least(rules.min_length, count_named(key, value, kMaxLength, path));
  } else if (key == "maxLength") {
    at_most(rules.max_length, count_named(key, value, kMaxLength, path));
  } else if (key == "pattern") {
    if (!value.text()) refuse_schema(path, "'pattern' must be a text");
    rules.patterns.emplace_back(*value.text(), path);
  } else if (key == "format") {
    auto regex = value.text() ? regex_of_format(*value.text()) : std::nullopt;
    if (regex) rules.patterns.emplace_back(*regex, path);
  } else if (key == "minItems") {
    at_least(rules.min_items, count_named(key, value, kMaxItems, path));
  } else if (key == "maxItems") {
    at_most(rules.max_items, count_named(key, value, kMaxItems, path));
  } else if (key == "uniqueItems") {
    if (!value.is_bool()) refuse_schema(path, "'uniqueItems' must be true or false");
    rules.unique_items |= value.truth();
  } else if (key == "required") {
    if (!value.sequence()) refuse_schema(path, "required must be a list of texts");
    std::unordered_set<std::string> known(rules.required.begin(), rules.required.end());
    for (const Value& name : value.sequence()->items) {
      if (!name.text()) refuse_schema(path, "required must be a list of texts");
      if (known.insert(*name.text()).second) rules.required.push_back(*name.text());
    }
  } else if (key == "propertyNames") {
    rules.names.push_back({&value, child(path, key)});
  } else if (key == "minProperties") {
    at_least(rules.min_properties, count_named(key, value, kMaxProperties, path));
  } else if (key == "maxProperties") {
    at_most(rules.max_properties, count_named(key, value, kMaxProperties, path));
  } else if (!(key == "unevaluatedProperties" && value.is_bool())) {
    refuse_schema(path, fmt::format("'{}' is not supported; leave it out", key.substr(0, 50)));
  }
}

SchemaAt SchemaReader::target_of(const Value& reference, const std::string& path) const {
  if (!reference.text() || !reference.text()->starts_with('#'))
    refuse_schema(path, "$ref must be a text that begins with '#'");
  const std::string& text = *reference.text();
  const Value* at = &root_;
  for (size_t begin = 1; begin < text.size();) {
    size_t end = std::min(text.find('/', begin + 1), text.size());
    std::string key = text.substr(begin + 1, end - begin - 1);
    key = chat::replace(chat::replace(key, "~1", "/"), "~0", "~");
    const chat::Sequence* list = at->sequence();
    bool is_index =
        list && !key.empty() && key.size() < 6 && key.find_first_not_of("0123456789") == std::string::npos;
    if (is_index)
      at = std::stoul(key) < list->items.size() ? &list->items[std::stoul(key)] : nullptr;
    else
      at = at->dict() ? at->dict()->find(key) : nullptr;
    if (!at) refuse_schema(path, fmt::format("$ref to '{}', which is not there", text.substr(0, 80)));
    begin = end;
  }
  return {at, text.substr(0, 80)};
}

SchemaAt SchemaReader::resolved(SchemaAt at) const {
  for (int hops = 0; hops < kMaxDepth; ++hops) {
    const Dict* dict = at.schema->dict();
    const Value* reference = dict ? dict->find("$ref") : nullptr;
    bool is_bare = reference && std::all_of(dict->items().begin(), dict->items().end(), [](const auto& item) {
                     return *item.first.text() == "$ref" || is_annotation(*item.first.text());
                   });
    if (!is_bare) return at;
    at = target_of(*reference, at.path);
  }
  refuse_schema(at.path, "it refers to itself without anything in between");
}

const Automaton& SchemaReader::pattern(const std::string& regex, const std::string& path) {
  auto known = patterns_.find(regex);
  if (known != patterns_.end()) return known->second;
  auto made = automaton_of_regex(regex, RegexMatch::anywhere);
  if (!made) refuse_schema(path, made.error().message);
  return patterns_.emplace(regex, std::move(*made)).first->second;
}

Schemas SchemaReader::schemas_of(const SchemaRules& rules, const std::string& name) {
  Schemas out;
  for (const PropertyRules& part : rules.properties) {
    auto own = part.find(name);
    bool known = own.has_value();
    if (known) out.push_back(std::move(*own));
    for (const PatternRule& rule : part.patterns)
      if (pattern(rule.pattern, rule.schema.path).takes(name)) out.push_back(rule.schema), known = true;
    if (!known && part.further) out.push_back(*part.further);
  }
  return out;
}

bool SchemaReader::takes(const Schemas& schemas, const Value& value) {
  return takes(read(schemas), value);
}

bool SchemaReader::takes(const SchemaRules& rules, const Value& value) {
  if (++takes_depth_ > kMaxTakesDepth)
    refuse_schema(rules.path, "it refers to itself without anything in between");
  bool out = takes_now(rules, value);
  --takes_depth_;
  return out;
}

bool SchemaReader::takes_now(const SchemaRules& rules, const Value& value) {
  unsigned type = type_of(value);
  if (rules.never || !(rules.types & type)) return false;
  if (rules.values && std::none_of(rules.values->begin(), rules.values->end(),
                                   [&](const Value& own) { return type_of(own) == type && equal(own, value); }))
    return false;
  for (const Alternatives& alternatives : rules.alternatives) {
    auto taken = std::count_if(alternatives.schemas.begin(), alternatives.schemas.end(),
                               [&](const SchemaAt& schema) { return takes(Schemas{schema}, value); });
    if (taken == 0 || (alternatives.exactly_one && taken > 1)) return false;
  }
  if (type == kInteger || type == kNumber) {
    auto decimal = to_decimal(value);
    return rules.numbers.restrict_nothing() || (decimal && rules.numbers.takes(*decimal));
  }
  if (type == kString) return takes_text(rules, *value.text());
  if (type == kArray) return takes_array(rules, value.sequence()->items);
  return type != kObject || takes_object(rules, *value.dict());
}

bool SchemaReader::takes_text(const SchemaRules& rules, const std::string& text) {
  int64_t length = chat::num_characters(text);
  if (length < rules.min_length || (rules.max_length >= 0 && length > rules.max_length)) return false;
  return std::all_of(rules.patterns.begin(), rules.patterns.end(),
                     [&](const auto& rule) { return pattern(rule.first, rule.second).takes(text); });
}

bool SchemaReader::takes_array(const SchemaRules& rules, const std::vector<Value>& items) {
  auto count = std::ssize(items);
  if (count < rules.min_items || (rules.max_items >= 0 && count > rules.max_items)) return false;
  for (size_t i = 0; i < items.size(); ++i) {
    for (size_t k = 0; rules.unique_items && k < i; ++k)
      if (equal(items[i], items[k])) return false;
    for (const ItemRules& part : rules.items) {
      bool is_first = i < part.first.size();
      if (is_first && !takes(Schemas{part.first[i]}, items[i])) return false;
      if (!is_first && part.further && !takes(Schemas{*part.further}, items[i])) return false;
    }
  }
  return true;
}

bool SchemaReader::takes_object(const SchemaRules& rules, const Dict& value) {
  auto count = static_cast<int64_t>(value.size());
  if (count < rules.min_properties || (rules.max_properties >= 0 && count > rules.max_properties)) return false;
  for (const std::string& name : rules.required)
    if (!value.find(name)) return false;
  for (const auto& [key, item] : value.items()) {
    if (!takes(rules.names, key)) return false;
    if (!takes(schemas_of(rules, *key.text()), item)) return false;
  }
  return true;
}

}  // namespace tessera::grammar
