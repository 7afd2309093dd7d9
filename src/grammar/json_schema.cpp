#include "grammar/json_schema.h"

#include <fmt/format.h>

#include <algorithm>

#include "grammar/regex.h"
#include "grammar/schema_compiler.h"

namespace tessera::grammar {

using chat::Value;

namespace {

constexpr int kMaxAlternativeDepth = 40, kMaxExclusionDepth = 6;
constexpr size_t kMaxUniqueValues = 100;

}  // namespace

int SchemaCompiler::rule_of(Schemas schemas) {
  std::vector<const Value*> key;
  for (SchemaAt& schema : schemas) {
    schema = reader_.resolved(std::move(schema));
    key.push_back(schema.schema);
  }
  std::sort(key.begin(), key.end());
  key.erase(std::unique(key.begin(), key.end()), key.end());
  auto [known, is_new] = rules_.emplace(std::move(key), 0);
  if (!is_new) return known->second;
  // Known before it is written, so that it may refer to itself.
  int rule = g_.new_rule(), end = g_.new_state();
  known->second = rule;
  g_.accept(end);
  write(g_.begin(rule), end, reader_.read(schemas), 0);
  return rule;
}

void SchemaCompiler::write(int from, int to, const SchemaRules& rules, int depth) {
  if (rules.never || rules.types == 0) return;
  if (!rules.alternatives.empty()) return write_alternatives(from, to, rules, depth);
  if (rules.values) {
    for (const Value& value : *rules.values)
      if (reader_.takes(rules, value)) g_.skip(g_.literal(from, chat::to_json(value)), to);
    return;
  }
  if (!rules.has_types && rules.implied == 0 && rules.patterns.empty()) return g_.call(from, json_.value(), to);
  unsigned types = rules.written_types();
  if (types & kNumber) types &= ~kInteger;
  for (unsigned type = kNull; type <= kObject; type *= 2)
    if (types & type) write_type(from, to, type, rules);
}

void SchemaCompiler::write_alternatives(int from, int to, const SchemaRules& rules, int depth) {
  if (depth > kMaxAlternativeDepth)
    refuse_schema(rules.path, "it refers to itself without anything in between");
  SchemaRules rest = rules;
  Alternatives alternatives = std::move(rest.alternatives.back());
  rest.alternatives.pop_back();
  for (size_t i = 0; i < alternatives.schemas.size(); ++i) {
    SchemaRules own = rest;
    reader_.add(alternatives.schemas[i], own);
    for (size_t k = 0; alternatives.exactly_one && k < alternatives.schemas.size(); ++k) {
      if (k == i || excludes(own, reader_.read({alternatives.schemas[k]}), 0)) continue;
      refuse_schema(alternatives.path,
                    fmt::format("the schemas {} and {} of 'oneOf' may hold at the same time; use 'anyOf'",
                                std::min(i, k), std::max(i, k)));
    }
    write(from, to, own, depth + 1);
  }
}

void SchemaCompiler::write_type(int from, int to, unsigned type, const SchemaRules& rules) {
  switch (type) {
    case kNull:
      return g_.skip(g_.literal(from, "null"), to);
    case kBoolean:
      for (const char* name : {"true", "false"}) g_.skip(g_.literal(from, name), to);
      return;
    case kInteger:
    case kNumber: {
      NumberRules numbers = rules.numbers;
      numbers.whole = type == kInteger;
      if (numbers.restrict_nothing())
        return g_.call(from, numbers.whole ? json_.integer() : json_.number(), to);
      try {
        return write_numbers(g_, from, to, numbers);
      } catch (const std::invalid_argument& error) {
        refuse_schema(rules.path, error.what());
      }
    }
    case kString:
      return write_string(from, to, rules);
    case kArray:
      return rules.unique_items && rules.max_items != 0 && rules.max_items != 1 ? write_unique(from, to, rules)
                                                                                : write_array(from, to, rules);
    default:
      return write_object(from, to, rules);
  }
}

Automaton SchemaCompiler::automaton_of(const SchemaRules& rules) {
  try {
    std::optional<Automaton> out;
    for (const auto& [regex, path] : rules.patterns) {
      const Automaton& own = reader_.pattern(regex, path);
      out = out ? out->intersection(own) : own;
    }
    if (out && rules.min_length == 0 && rules.max_length < 0) return *out;
    Automaton lengths = Automaton::of_lengths(rules.min_length, rules.max_length);
    return out ? out->intersection(lengths) : lengths;
  } catch (const AutomatonError& error) {
    refuse_schema(rules.path, error.what());
  }
}

void SchemaCompiler::write_string(int from, int to, const SchemaRules& rules) {
  if (rules.max_length >= 0 && rules.max_length < rules.min_length) return;
  int at = g_.literal(from, "\""), end = g_.new_state();
  g_.skip(g_.literal(end, "\""), to);
  if (!rules.patterns.empty()) return strings_.write(at, end, automaton_of(rules));
  for (int64_t i = 0;; ++i) {
    if (i >= rules.min_length) g_.skip(at, end);
    if (i == rules.max_length) return;
    bool repeats = rules.max_length < 0 && i >= rules.min_length;
    int next = repeats ? at : g_.new_state();
    g_.call(at, json_.character(), next);
    if (repeats) return;
    at = next;
  }
}

Schemas SchemaCompiler::item_at(const SchemaRules& rules, size_t i) const {
  Schemas out;
  for (const ItemRules& part : rules.items) {
    if (i < part.first.size())
      out.push_back(part.first[i]);
    else if (part.further)
      out.push_back(*part.further);
  }
  return out;
}

void SchemaCompiler::write_array(int from, int to, const SchemaRules& rules) {
  int64_t first = 0;
  for (const ItemRules& part : rules.items) first = std::max(first, std::ssize(part.first));
  int at = json_.spaced(g_.literal(from, "[")), close = g_.new_state();
  g_.skip(g_.literal(close, "]"), to);
  for (int64_t i = 0;; ++i) {
    if (i >= rules.min_items) g_.skip(i == 0 ? at : json_.spaced(at), close);
    if (i == rules.max_items) return;
    bool repeats = rules.max_items < 0 && i > 0 && i >= rules.min_items && i >= first;
    int next = repeats ? at : g_.new_state();
    int begin = i == 0 ? at : json_.spaced(g_.literal(at, ","));
    g_.call(begin, rule_of(item_at(rules, static_cast<size_t>(i))), next);
    if (repeats) return;
    at = next;
  }
}

// Items of an enum, each at most once, in its order.
void SchemaCompiler::write_unique(int from, int to, const SchemaRules& rules) {
  SchemaRules item = reader_.read(item_at(rules, 0));
  bool is_listed =
      item.values && item.alternatives.empty() && rules.items.size() == 1 && rules.items[0].first.empty();
  if (!is_listed) refuse_schema(rules.path, "'uniqueItems' is supported for items of an enum only");
  std::vector<std::string> texts;
  for (const Value& value : *item.values) {
    std::string text = chat::to_json(value);
    if (reader_.takes(item, value) && std::find(texts.begin(), texts.end(), text) == texts.end())
      texts.push_back(text);
  }
  if (texts.size() > kMaxUniqueValues)
    refuse_schema(rules.path, fmt::format("'uniqueItems' of an enum of more than {} values", kMaxUniqueValues));
  std::vector<int> at(texts.size() + 1);  // behind so many items
  for (int& state : at) state = g_.new_state();
  g_.skip(json_.spaced(g_.literal(from, "[")), at[0]);
  for (const std::string& text : texts) {
    std::vector<int> next = at;
    for (size_t n = 0; n < texts.size(); ++n) {
      if (static_cast<int64_t>(n) == rules.max_items) break;
      next[n + 1] = g_.new_state();
      g_.skip(at[n + 1], next[n + 1]);
      int begin = n == 0 ? at[0] : json_.spaced(g_.literal(at[n], ","));
      g_.skip(g_.literal(begin, text), next[n + 1]);
    }
    at = std::move(next);
  }
  int close = g_.new_state();
  for (size_t n = 0; n <= texts.size(); ++n)
    if (static_cast<int64_t>(n) >= rules.min_items) g_.skip(n == 0 ? at[0] : json_.spaced(at[n]), close);
  g_.skip(g_.literal(close, "]"), to);
}

bool SchemaCompiler::excludes(const SchemaRules& a, const SchemaRules& b, int depth) {
  if (a.never || b.never) return true;
  if (depth > kMaxExclusionDepth) return false;
  for (const SchemaRules* side : {&a, &b}) {
    if (side->alternatives.empty()) continue;
    SchemaRules rest = *side;
    Alternatives alternatives = std::move(rest.alternatives.back());
    rest.alternatives.pop_back();
    return std::all_of(alternatives.schemas.begin(), alternatives.schemas.end(), [&](const SchemaAt& schema) {
      SchemaRules own = rest;
      reader_.add(schema, own);
      return side == &a ? excludes(own, b, depth + 1) : excludes(a, own, depth + 1);
    });
  }
  if (a.values || b.values) {
    const auto& values = a.values ? *a.values : *b.values;
    return std::none_of(values.begin(), values.end(),
                        [&](const Value& value) { return reader_.takes(a, value) && reader_.takes(b, value); });
  }
  unsigned common = a.written_types() & b.types;
  for (unsigned type = kNull; type <= kObject; type *= 2)
    if ((common & type) && !type_excludes(type, a, b, depth)) return false;
  return true;
}

bool SchemaCompiler::type_excludes(unsigned type, const SchemaRules& a, const SchemaRules& b, int depth) {
  auto apart = [](int64_t least, int64_t most, int64_t other_least, int64_t other_most) {
    return (most >= 0 && most < other_least) || (other_most >= 0 && other_most < least);
  };
  switch (type) {
    case kInteger:
    case kNumber: {
      NumberRules both = a.numbers;
      both.multiple_of.reset();
      NumberRules other = b.numbers;
      other.multiple_of.reset();
      both.add(other);
      if (!both.least || !both.most) return false;
      int order = compare(both.least->at, both.most->at);
      return order > 0 || (order == 0 && !(both.least->included && both.most->included));
    }
    case kString:
      if (apart(a.min_length, a.max_length, b.min_length, b.max_length)) return true;
      return !(a.patterns.empty() && b.patterns.empty()) &&
             automaton_of(a).intersection(automaton_of(b)).empty();
    case kArray:
      return apart(a.min_items, a.max_items, b.min_items, b.max_items);
    case kObject:
      return object_excludes(a, b, depth + 1);
    default:
      return false;
  }
}

namespace {

Result<std::shared_ptr<const Grammar>> finished(std::shared_ptr<Grammar> grammar, int rule, const char* what) {
  Status status = grammar->finish(rule);
  if (!status.ok()) return status.error().within(what);
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace

Result<int> add_json_of_schema(Grammar& grammar, const Value& schema) {
  try {
    return SchemaCompiler(grammar, schema).rule_of({{&schema, "#"}});
  } catch (const SchemaError& error) {
    return invalid("{}", error.what());
  } catch (const AutomatonError& error) {
    return invalid("JSON schema: {}", error.what());
  } catch (const chat::TemplateError& error) {
    return invalid("JSON schema: {}", error.what());
  }
}

Result<std::shared_ptr<const Grammar>> json_of_schema(const Value& schema) {
  auto grammar = std::make_shared<Grammar>();
  TESSERA_ASSIGN_OR_RETURN(int rule, add_json_of_schema(*grammar, schema));
  return finished(grammar, rule, "JSON schema");
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

Result<std::shared_ptr<const Grammar>> text_of_regex(std::string_view regex) {
  TESSERA_ASSIGN_OR_RETURN(Automaton automaton, automaton_of_regex(regex, RegexMatch::whole));
  auto grammar = std::make_shared<Grammar>();
  int rule = grammar->new_rule(), end = grammar->new_state();
  grammar->accept(end);
  StringWriter(*grammar, StringWriter::plain).write(grammar->begin(rule), end, automaton);
  return finished(grammar, rule, "regular expression");
}

}  // namespace tessera::grammar
