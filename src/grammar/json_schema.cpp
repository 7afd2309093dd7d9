#include "grammar/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "grammar/json_pieces.h"

namespace tessera::grammar {

using chat::Dict;
using chat::Value;

namespace {

constexpr int64_t kMaxItems = 1000, kMaxLength = 10'000;

struct SchemaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw SchemaError(fmt::format("JSON schema at {}: {}", path, what));
}

bool one_of_names(const std::string& name, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* known) { return name == known; });
}

const Value* find(const Dict& schema, const char* key) {
  return schema.find(key);
}

bool has_type(const Value& value, const std::string& type) {
  if (type == "string") return value.is_text();
  if (type == "boolean") return value.is_bool();
  if (type == "null") return value.is_none();
  if (type == "object") return value.dict() != nullptr;
  if (type == "array") return value.sequence() != nullptr;
  bool whole =
      value.is_integer() ||
      (value.is_float() && value.number() == static_cast<double>(static_cast<int64_t>(value.number())));
  return type == "number" ? value.is_integer() || value.is_float() : type == "integer" && whole;
}

class SchemaCompiler {
 public:
  SchemaCompiler(Grammar& grammar, const Value& root) : g_(grammar), json_(grammar), root_(root) {}

  int rule_of(const Value& schema, const std::string& path) {
    int rule = g_.new_rule(), end = g_.new_state();
    g_.accept(end);
    write(g_.begin(rule), end, schema, path);
    return rule;
  }

 private:
  void write(int from, int to, const Value& schema, const std::string& path) {
    if (schema.is_bool()) {
      if (schema.truth()) g_.call(from, json_.value(), to);
      return;
    }
    const Dict* dict = schema.dict();
    if (!dict) refuse(path, "a schema must be an object, true or false");
    check_keywords(*dict, path);
    if (const Value* ref = find(*dict, "$ref"))
      return alone(*dict, "$ref", path), g_.call(from, referred(*ref, path), to);
    if (const Value* value = find(*dict, "const")) return write_values(from, to, {*value}, *dict, path);
    if (const Value* values = find(*dict, "enum")) {
      if (!values->sequence() || values->sequence()->items.empty())
        refuse(path, "enum must be a list that is not empty");
      return write_values(from, to, values->sequence()->items, *dict, path);
    }
    if (const Value* any = find(*dict, "anyOf"))
      return alone(*dict, "anyOf", path), write_any(from, to, *any, path);
    if (const Value* all = find(*dict, "allOf")) {
      alone(*dict, "allOf", path);
      if (!all->sequence() || all->sequence()->items.size() != 1)
        refuse(path, "allOf is supported with one schema only");
      return write(from, to, all->sequence()->items[0], path + "/allOf/0");
    }
    write_types(from, to, *dict, path);
  }

  static bool is_annotation(const std::string& key) {
    return one_of_names(
        key, {"title", "description", "default", "examples", "example", "$schema", "$id", "$comment", "$defs",
              "definitions", "deprecated", "readOnly", "writeOnly", "strict", "format"});
  }

  static void check_keywords(const Dict& schema, const std::string& path) {
    for (const auto& [key, value] : schema.items()) {
      const std::string& name = *key.text();
      bool known =
          is_annotation(name) ||
          one_of_names(name, {"type", "properties", "required", "additionalProperties", "items", "minItems",
                              "maxItems", "minLength", "maxLength", "enum", "const", "anyOf", "allOf", "$ref"});
      if (!known) refuse(path, fmt::format("'{}' is not supported; leave it out", name.substr(0, 50)));
    }
  }

  // These keywords replace all others; what else would restrict is refused.
  static void alone(const Dict& schema, const char* keyword, const std::string& path) {
    for (const auto& [key, value] : schema.items())
      if (*key.text() != keyword && !is_annotation(*key.text()) && *key.text() != "type")
        refuse(path, fmt::format("'{}' beside '{}' is not supported", *key.text(), keyword));
    if (find(schema, "type")) refuse(path, fmt::format("'type' beside '{}' is not supported", keyword));
  }

  static std::vector<std::string> types_of(const Dict& schema, const std::string& path) {
    const Value* type = find(schema, "type");
    std::vector<std::string> out;
    if (!type) return out;
    std::vector<Value> names = type->sequence() ? type->sequence()->items : std::vector<Value>{*type};
    for (const Value& name : names) {
      bool known = name.text() && one_of_names(*name.text(), {"string", "number", "integer", "boolean", "null",
                                                              "object", "array"});
      if (!known)
        refuse(path, "type must be string, number, integer, boolean, null, object, array or a list of these");
      out.push_back(*name.text());
    }
    if (out.empty()) refuse(path, "type must not be empty");
    return out;
  }

  void write_values(int from, int to, const std::vector<Value>& values, const Dict& schema,
                    const std::string& path) {
    for (const auto& [key, value] : schema.items())
      if (!is_annotation(*key.text()) && !one_of_names(*key.text(), {"type", "enum", "const"}))
        refuse(path, fmt::format("'{}' beside enum or const is not supported", *key.text()));
    if (find(schema, "enum") && find(schema, "const")) refuse(path, "enum beside const is not supported");
    auto types = types_of(schema, path);
    for (const Value& value : values) {
      bool fits = types.empty() || std::any_of(types.begin(), types.end(),
                                               [&](const std::string& type) { return has_type(value, type); });
      if (fits) g_.skip(g_.literal(from, chat::to_json(value)), to);
    }
  }

  void write_any(int from, int to, const Value& schemas, const std::string& path) {
    if (!schemas.sequence() || schemas.sequence()->items.empty())
      refuse(path, "anyOf must be a list that is not empty");
    for (size_t i = 0; i < schemas.sequence()->items.size(); ++i)
      g_.call(from, rule_of(schemas.sequence()->items[i], fmt::format("{}/anyOf/{}", path, i)), to);
  }

  int referred(const Value& reference, const std::string& path) {
    if (!reference.text() || !reference.text()->starts_with('#'))
      refuse(path, "$ref must be a text that begins with '#'");
    const std::string& text = *reference.text();
    auto [known, is_new] = references_.emplace(text, -1);
    if (!is_new) return known->second;
    const Value* at = &root_;
    for (size_t begin = 1; begin < text.size();) {
      size_t end = std::min(text.find('/', begin + 1), text.size());
      at = at->dict() ? at->dict()->find(text.substr(begin + 1, end - begin - 1)) : nullptr;
      if (!at) refuse(path, fmt::format("$ref to '{}', which is not there", text.substr(0, 80)));
      begin = end;
    }
    // Known before it is written, so that it may refer to itself.
    int rule = g_.new_rule(), end = g_.new_state();
    known->second = rule;
    g_.accept(end);
    write(g_.begin(rule), end, *at, text.substr(0, 80));
    return rule;
  }

  void write_types(int from, int to, const Dict& schema, const std::string& path) {
    auto types = types_of(schema, path);
    if (types.empty()) types = implied_types(schema);
    if (types.empty()) return g_.call(from, json_.value(), to);
    for (const std::string& type : types) {
      if (type == "object")
        write_object(from, to, schema, path);
      else if (type == "array")
        write_array(from, to, schema, path);
      else if (type == "string")
        write_string(from, to, schema, path);
      else if (type == "number")
        g_.call(from, json_.number(), to);
      else if (type == "integer")
        g_.call(from, json_.integer(), to);
      else if (type == "null")
        g_.skip(g_.literal(from, "null"), to);
      else
        for (const char* name : {"true", "false"}) g_.skip(g_.literal(from, name), to);
    }
  }

  // A schema without a type is given that of its keywords.
  static std::vector<std::string> implied_types(const Dict& schema) {
    std::vector<std::string> out;
    if (find(schema, "properties") || find(schema, "required") || find(schema, "additionalProperties"))
      out.push_back("object");
    if (find(schema, "items") || find(schema, "minItems") || find(schema, "maxItems")) out.push_back("array");
    if (find(schema, "minLength") || find(schema, "maxLength")) out.push_back("string");
    return out;
  }

  struct Bounds {
    int64_t least, most;  // most -1: any
  };
  static Bounds bounds_of(const Dict& schema, const char* least, const char* most, int64_t limit,
                          const std::string& path) {
    auto read = [&](const char* key, int64_t fallback) {
      const Value* value = find(schema, key);
      if (!value) return fallback;
      if (!value->is_integer() || value->integer() < 0 || value->integer() > limit)
        refuse(path, fmt::format("'{}' must be an integer from 0 to {}", key, limit));
      return value->integer();
    };
    Bounds out{read(least, 0), read(most, -1)};
    if (out.most >= 0 && out.most < out.least) refuse(path, fmt::format("'{}' is below '{}'", most, least));
    return out;
  }

  void write_string(int from, int to, const Dict& schema, const std::string& path) {
    auto [least, most] = bounds_of(schema, "minLength", "maxLength", kMaxLength, path);
    int at = g_.literal(from, "\""), end = g_.new_state();
    g_.skip(g_.literal(end, "\""), to);
    for (int64_t i = 0;; ++i) {
      if (i >= least) g_.skip(at, end);
      if (i == most) return;
      bool repeats = most < 0 && i >= least;
      int next = repeats ? at : g_.new_state();
      g_.call(at, json_.character(), next);
      if (repeats) return;
      at = next;
    }
  }

  void write_array(int from, int to, const Dict& schema, const std::string& path) {
    auto [least, most] = bounds_of(schema, "minItems", "maxItems", kMaxItems, path);
    const Value* items = find(schema, "items");
    int item = items ? rule_of(*items, path + "/items") : json_.value();
    int open = json_.spaced(g_.literal(from, "[")), close = g_.new_state();
    g_.skip(g_.literal(close, "]"), to);
    if (least == 0) g_.skip(open, close);
    if (most == 0) return;
    int at = g_.new_state();
    g_.call(open, item, at);
    for (int64_t i = 1;; ++i) {
      if (i >= least) g_.skip(json_.spaced(at), close);
      if (i == most) return;
      bool repeats = most < 0 && i >= least;
      int next = repeats ? at : g_.new_state();
      g_.call(json_.spaced(g_.literal(at, ",")), item, next);
      if (repeats) return;
      at = next;
    }
  }

  struct Member {
    int rule;  // "key": value
    bool required;
  };

  int member_rule(const std::string& name, const Value& schema, const std::string& path) {
    int rule = g_.new_rule(), end = g_.new_state();
    g_.accept(end);
    int colon = g_.literal(g_.begin(rule), chat::to_json(Value(name)) + ":");
    g_.call(json_.spaced(colon), rule_of(schema, path + "/" + name.substr(0, 50)), end);
    return rule;
  }

  std::vector<Member> members_of(const Dict& schema, const std::string& path) {
    std::vector<std::string> required;
    if (const Value* names = find(schema, "required")) {
      if (!names->sequence()) refuse(path, "required must be a list of texts");
      for (const Value& name : names->sequence()->items) {
        if (!name.text()) refuse(path, "required must be a list of texts");
        required.push_back(*name.text());
      }
    }
    const Value *properties = find(schema, "properties"), *others = find(schema, "additionalProperties");
    if (properties && !properties->dict()) refuse(path, "properties must be an object");
    std::vector<Member> out;
    if (properties)
      for (const auto& [name, value] : properties->dict()->items()) {
        bool must = std::find(required.begin(), required.end(), *name.text()) != required.end();
        if (value.is_bool() && !value.truth() && !must) continue;
        out.push_back({member_rule(*name.text(), value, path + "/properties"), must});
      }
    for (const std::string& name : required)
      if (!properties || !properties->dict()->find(name))
        out.push_back({member_rule(name, others ? *others : Value(true), path + "/required"), true});
    return out;
  }

  // From `open` nothing is written yet, from `more` something is; both go through the members in order.
  void write_object(int from, int to, const Dict& schema, const std::string& path) {
    auto members = members_of(schema, path);
    const Value* others = find(schema, "additionalProperties");
    bool closed = others && others->is_bool() && !others->truth();
    if (members.empty() && !closed && !find(schema, "properties"))
      return json_.write_object(from, to,
                                others ? rule_of(*others, path + "/additionalProperties") : json_.value());
    int open = json_.spaced(g_.literal(from, "{")), more = g_.new_state(), close = g_.new_state();
    g_.skip(g_.literal(close, "}"), to);
    for (const Member& member : members) {
      int next_open = g_.new_state(), next_more = g_.new_state();
      g_.call(open, member.rule, next_more);
      g_.call(json_.spaced(g_.literal(more, ",")), member.rule, next_more);
      if (!member.required) g_.skip(open, next_open), g_.skip(more, next_more);
      open = next_open;
      more = next_more;
    }
    g_.skip(open, close);
    g_.skip(json_.spaced(more), close);
  }

  Grammar& g_;
  JsonPieces json_;
  const Value& root_;
  std::map<std::string, int> references_;
};

Result<std::shared_ptr<const Grammar>> finished(std::shared_ptr<Grammar> grammar, int rule, const char* what) {
  Status status = grammar->finish(rule);
  if (!status.ok()) return status.error().within(what);
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace

Result<std::shared_ptr<const Grammar>> json_of_schema(const Value& schema) {
  auto grammar = std::make_shared<Grammar>();
  try {
    int rule = SchemaCompiler(*grammar, schema).rule_of(schema, "#");
    return finished(grammar, rule, "JSON schema");
  } catch (const SchemaError& error) {
    return invalid("{}", error.what());
  } catch (const chat::TemplateError& error) {
    return invalid("JSON schema: {}", error.what());
  }
}

Result<std::shared_ptr<const Grammar>> any_json_object() {
  auto grammar = std::make_shared<Grammar>();
  JsonPieces json(*grammar);
  return finished(grammar, json.object(), "JSON");
}

Result<std::shared_ptr<const Grammar>> one_of(const std::vector<std::string>& choices) {
  auto grammar = std::make_shared<Grammar>();
  int rule = grammar->new_rule();
  for (const std::string& choice : choices) grammar->accept(grammar->literal(grammar->begin(rule), choice));
  return finished(grammar, rule, "choices");
}

}  // namespace tessera::grammar
