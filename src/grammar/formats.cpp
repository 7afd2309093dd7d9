#include "grammar/formats.h"

namespace tessera::grammar {

namespace {

// Days that every month has; years of four digits from 1900 to 2099.
const std::string kDate = "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";
const std::string kTime =
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-2]):[0-5][0-9])";
const std::string kLabel = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?";
const std::string kHost = kLabel + "(\\." + kLabel + "){1,4}";
const std::string kByte = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

}  // namespace

std::optional<std::string> regex_of_format(const std::string& format) {
  auto whole = [](const std::string& regex) { return "^(" + regex + ")$"; };
  if (format == "date") return whole(kDate);
  if (format == "time") return whole(kTime);
  if (format == "date-time") return whole(kDate + "T" + kTime);
  if (format == "duration")
    return whole("P([1-9][0-9]{0,3}D(T[1-9][0-9]{0,3}H)?|T[1-9][0-9]{0,3}[HMS]|[1-9][0-9]{0,3}[YMW])");
  if (format == "email" || format == "idn-email")
    return whole("[a-z0-9_+-]{1,30}(\\.[a-z0-9_+-]{1,30}){0,3}@" + kHost);
  if (format == "hostname" || format == "idn-hostname") return whole(kHost);
  if (format == "ipv4") return whole("(" + kByte + "\\.){3}" + kByte);
  if (format == "ipv6") return whole("([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}");
  if (format == "uuid") return whole("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}");
  if (format == "uri" || format == "iri" || format == "url")
    return whole("https?://" + kHost +
                 "(:[1-9][0-9]{1,3})?(/[A-Za-z0-9._~-]{1,30}){0,8}/?(\\?[A-Za-z0-9._~&=-]{1,60})?");
  return std::nullopt;
}

}  // namespace tessera::grammar
