// Writes what schemas ask of a value into a grammar. Errors are SchemaError. Threads: one at a time.
#pragma once

#include "grammar/json_pieces.h"
#include "grammar/schema_rules.h"
#include "grammar/string_writer.h"

namespace tessera::grammar {

class SchemaCompiler {
 public:
  // `root` must outlive this.
  SchemaCompiler(Grammar& grammar, const chat::Value& root)
      : g_(grammar), json_(grammar), strings_(grammar, StringWriter::json), reader_(root) {}

  // The rule of values that satisfy all of them; the same rule for the same schemas, so they may refer to
  // themselves.
  int rule_of(Schemas schemas);

 private:
  void write(int from, int to, const SchemaRules& rules, int depth);
  void write_alternatives(int from, int to, const SchemaRules& rules, int depth);
  void write_type(int from, int to, unsigned type, const SchemaRules& rules);
  void write_string(int from, int to, const SchemaRules& rules);
  void write_array(int from, int to, const SchemaRules& rules);
  void write_unique(int from, int to, const SchemaRules& rules);
  Schemas item_at(const SchemaRules& rules, size_t i) const;

  // Properties in the order of the schema, then others.
  struct Member {
    int rule;  // "key": value
    bool required;
  };
  struct Names {
    std::vector<std::string> known;  // every name that a schema has
    std::vector<Member> members;
    bool never = false;  // a required one cannot be
  };
  void write_object(int from, int to, const SchemaRules& rules);
  Names names_of(const SchemaRules& rules);
  std::vector<int> further_members(const SchemaRules& rules, const Names& names);
  Automaton further_names(const SchemaRules& rules, const Names& names);
  int member_rule(const std::string& name, Schemas value);
  bool is_open(const SchemaRules& rules) const;

  // The texts of the rules. Throws SchemaError when it is too large.
  Automaton automaton_of(const SchemaRules& rules);
  // No value that is written for `a` satisfies `b`, for certain.
  bool excludes(const SchemaRules& a, const SchemaRules& b, int depth);
  bool type_excludes(unsigned type, const SchemaRules& a, const SchemaRules& b, int depth);
  bool object_excludes(const SchemaRules& a, const SchemaRules& b, int depth);

  Grammar& g_;
  JsonPieces json_;
  StringWriter strings_;
  SchemaReader reader_;
  std::map<std::vector<const chat::Value*>, int> rules_;
};

}  // namespace tessera::grammar
