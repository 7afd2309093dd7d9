// Objects: named properties in the order of their schemas, then those that only patterns or nothing names.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "grammar/regex.h"
#include "grammar/schema_compiler.h"

namespace tessera::grammar {

using chat::Value;

namespace {

constexpr size_t kMaxNamePatterns = 4;

using NameSet = std::unordered_set<std::string>;

NameSet set_of(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

bool is_false(const SchemaAt& schema) {
  return schema.schema->is_bool() && !schema.schema->truth();
}

}  // namespace

int SchemaCompiler::member_rule(const std::string& name, Schemas value) {
  int rule = g_.new_rule(), end = g_.new_state();
  g_.accept(end);
  int colon = g_.literal(g_.begin(rule), chat::to_json(Value(name)) + ":");
  g_.call(json_.spaced(colon), rule_of(std::move(value)), end);
  return rule;
}

SchemaCompiler::Names SchemaCompiler::names_of(const SchemaRules& rules) {
  Names out;
  NameSet known;
  const NameSet all_required = set_of(rules.required);
  auto add = [&](const std::string& name) {
    if (!known.insert(name).second) return;
    out.known.push_back(name);
    bool required = all_required.contains(name);
    Schemas value = reader_.schemas_of(rules, name);
    bool is_impossible =
        std::any_of(value.begin(), value.end(), is_false) || !reader_.takes(rules.names, Value(name));
    out.never |= required && is_impossible;
    if (!is_impossible) out.members.push_back({member_rule(name, std::move(value)), required});
  };
  for (const PropertyRules& part : rules.properties)
    if (part.named)
      for (const auto& [name, schema] : part.named->items()) add(*name.text());
  for (const std::string& name : rules.required) add(name);
  return out;
}

// Are properties written that no schema names? Where nothing is said beside names, none are.
bool SchemaCompiler::is_open(const SchemaRules& rules) const {
  return std::all_of(rules.properties.begin(), rules.properties.end(), [](const PropertyRules& part) {
    return part.further ? !is_false(*part.further) : !part.has_names() && part.patterns.empty();
  });
}

// All names but those of the schemas, as far as propertyNames allows.
Automaton SchemaCompiler::further_names(const SchemaRules& rules, const Names& names) {
  Automaton others = Automaton::of_texts(names.known).complement();
  if (rules.names.empty()) return others;
  SchemaRules name = reader_.read(rules.names);
  if (name.never) return Automaton(std::vector<Automaton::State>(1));
  if (!name.alternatives.empty()) refuse_schema(name.path, "alternatives in propertyNames are not supported");
  if (!name.values) return others.intersection(automaton_of(name));
  std::vector<std::string> texts;
  for (const Value& value : *name.values)
    if (value.text() && reader_.takes(name, value)) texts.push_back(*value.text());
  return others.intersection(Automaton::of_texts(texts));
}

// One rule for each way in which a name can match the patterns.
std::vector<int> SchemaCompiler::further_members(const SchemaRules& rules, const Names& names) {
  std::vector<PatternRule> patterns;
  for (const PropertyRules& part : rules.properties)
    for (const PatternRule& own : part.patterns)
      if (std::none_of(patterns.begin(), patterns.end(),
                       [&](const auto& p) { return p.pattern == own.pattern; }))
        patterns.push_back(own);
  if (patterns.size() > kMaxNamePatterns)
    refuse_schema(rules.path, fmt::format("more than {} patternProperties", kMaxNamePatterns));
  std::vector<int> out;
  if (patterns.empty() && !is_open(rules)) return out;
  Automaton all = further_names(rules, names);
  for (size_t mask = 0; mask < size_t{1} << patterns.size(); ++mask) {
    if (mask == 0 && !is_open(rules)) continue;
    Automaton own = all;
    for (size_t i = 0; i < patterns.size(); ++i) {
      const Automaton& matching = reader_.pattern(patterns[i].pattern, patterns[i].schema.path);
      auto wide = automaton_of_regex(patterns[i].pattern, RegexMatch::anywhere, RegexReading::wide);
      own = own.intersection(mask >> i & 1 ? matching : wide->complement());
    }
    Schemas value;
    for (const PropertyRules& part : rules.properties) {
      size_t before = value.size();
      for (size_t i = 0; i < patterns.size(); ++i)
        for (const PatternRule& rule : part.patterns)
          if ((mask >> i & 1) && rule.pattern == patterns[i].pattern) value.push_back(rule.schema);
      if (value.size() == before && part.further) value.push_back(*part.further);
    }
    if (own.empty() || std::any_of(value.begin(), value.end(), is_false)) continue;
    int rule = g_.new_rule(), end = g_.new_state(), name_end = g_.new_state();
    g_.accept(end);
    bool any_name = patterns.empty() && names.known.empty() && rules.names.empty();
    if (any_name)
      g_.call(g_.begin(rule), json_.text(), name_end);
    else
      strings_.write(g_.literal(g_.begin(rule), "\""), name_end, own);
    int colon = g_.literal(name_end, any_name ? ":" : "\":");
    g_.call(json_.spaced(colon), rule_of(std::move(value)), end);
    out.push_back(rule);
  }
  return out;
}

// at[n]: n properties are written; the last one stands for more when there is no upper bound.
void SchemaCompiler::write_object(int from, int to, const SchemaRules& rules) {
  Names names = names_of(rules);
  if (names.never) return;
  auto further = further_members(rules, names);
  bool has_most = rules.max_properties >= 0;
  if (!further.empty() && rules.min_properties > 1 &&
      (has_most || std::ssize(names.members) < rules.min_properties))
    refuse_schema(rules.path, "'minProperties' above 1 is not supported for properties without names");
  auto last = static_cast<size_t>(std::max<int64_t>(1, has_most ? rules.max_properties : rules.min_properties));
  std::vector<int> at(last + 1);
  for (int& state : at) state = g_.new_state();
  g_.skip(json_.spaced(g_.literal(from, "{")), at[0]);
  auto write_one = [&](size_t written, int member, int next) {
    g_.call(written == 0 ? at[0] : json_.spaced(g_.literal(at[written], ",")), member, next);
  };
  auto may_follow = [&](size_t written) {
    return !has_most || static_cast<int64_t>(written) < rules.max_properties;
  };
  for (const Member& member : names.members) {
    std::vector<int> next(last + 1);
    for (int& state : next) state = g_.new_state();
    for (size_t n = 0; n <= last; ++n) {
      if (may_follow(n)) write_one(n, member.rule, next[std::min(n + 1, last)]);
      if (!member.required) g_.skip(at[n], next[n]);
    }
    at = std::move(next);
  }
  // The same name may come twice and counts once: for a lower bound only the first one counts.
  for (int member : further)
    for (size_t n = 0; n <= last; ++n)
      if (may_follow(n)) write_one(n, member, at[has_most || n == 0 ? std::min(n + 1, last) : n]);
  int close = g_.new_state();
  for (size_t n = 0; n <= last; ++n)
    if (static_cast<int64_t>(n) >= rules.min_properties &&
        !(has_most && static_cast<int64_t>(n) > rules.max_properties))
      g_.skip(n == 0 ? at[n] : json_.spaced(at[n]), close);
  g_.skip(g_.literal(close, "}"), to);
}

bool SchemaCompiler::object_excludes(const SchemaRules& a, const SchemaRules& b, int depth) {
  NameSet written = set_of(a.required);
  bool has_patterns = false;
  for (const PropertyRules& part : a.properties) {
    if (part.named)
      for (const auto& [name, schema] : part.named->items()) written.insert(*name.text());
    has_patterns |= !part.patterns.empty();
  }
  bool is_closed = !is_open(a) && !has_patterns;
  for (const std::string& name : b.required)
    if (is_closed && !written.contains(name)) return true;
  for (const std::string& name : a.required)
    if (excludes(reader_.read(reader_.schemas_of(a, name)), reader_.read(reader_.schemas_of(b, name)), depth))
      return true;
  return false;
}

}  // namespace tessera::grammar
