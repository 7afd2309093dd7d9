#include "plan/facility.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/toml.h"
#include "plan/embedded.h"
#include "plan/report.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

constexpr double kHoursPerYear = 8760;

const json& figures() {
  static const json root = [] {
    for (const EmbeddedFile& file : embedded_files())
      if (file.path == "facility.toml") return parse_toml(file.text, file.path).value().root;
    return json::object();
  }();
  return root;
}

double goodput_of(const GpuCluster& cluster, double devices, const FailurePolicy& policy) {
  return best_goodput(failure_model(cluster, devices, figures().at("state_bytes_per_device"), policy)).share;
}

// Goodput falls as a job grows, so the largest job that keeps the target is found by halving.
double largest_job(const GpuCluster& cluster, double devices, double target, const FailurePolicy& policy) {
  if (goodput_of(cluster, devices, policy) >= target) return devices;
  double low = 0, high = devices;
  for (int step = 0; step < 60; ++step) {
    double middle = (low + high) / 2;
    (goodput_of(cluster, middle, policy) >= target ? low : high) = middle;
  }
  return std::floor(low);
}

void fill_failures(const GpuCluster& cluster, const FailurePolicy& policy, Facility& site) {
  FailureModel whole = failure_model(cluster, site.devices, 0, policy);
  site.seconds_between_failures = whole.mean_time_between_s;
  site.failures_per_day = whole.mean_time_between_s > 0 ? 86400 / whole.mean_time_between_s : 0;
  site.spare_hosts = whole.spare_hosts;
  site.target_goodput = figures().at("goodput");
  site.largest_job = largest_job(cluster, site.devices, site.target_goodput, policy);
  site.whole_site_goodput = goodput_of(cluster, site.devices, policy);
}

void fill_money_and_carbon(const GpuCluster& cluster, Facility& site) {
  const Economy& economy = cluster.economy;
  double device_hours = site.devices * kHoursPerYear;
  site.energy_twh_per_year = site.watts * kHoursPerYear / 1e12;
  site.co2_mt_per_year = site.energy_twh_per_year * economy.grid_kg_per_kwh;
  site.embodied_mt_per_year = device_hours / economy.lifetime_hours * economy.embodied_kg / 1e9;
  site.capital_usd = site.watts * figures().at("capital_usd_per_w").get<double>();
  site.owned_usd_per_year = device_hours * economy.owned_price;
  site.rented_usd_per_year = device_hours * economy.price;
}

}  // namespace

Result<Facility> facility(const GpuCluster& cluster, double watts, const FailurePolicy& policy) {
  Facility site;
  site.watts = watts;
  site.devices = std::floor(watts / cluster.power.all_in_w);
  if (site.devices < 1)
    return invalid(
        "{:g} W feed no device of {}, which takes {:g} W with its share of host, network and cooling", watts,
        cluster.name, cluster.power.all_in_w);
  site.hosts = std::floor(site.devices / static_cast<double>(cluster.reliability.devices_per_host));
  site.domains = std::floor(site.devices / static_cast<double>(cluster.inner().devices));
  site.peak_bf16 = site.devices * cluster.device.peak(MathFormat::bf16);
  site.peak_fp8 = site.devices * cluster.device.peak(MathFormat::fp8);
  fill_failures(cluster, policy, site);
  fill_money_and_carbon(cluster, site);
  return site;
}

std::string facility_text(const GpuCluster& cluster, const Facility& site) {
  std::string text = fmt::format(
      "{:.4g} MW of {}: {:.0f} devices ({:.0f} W each at the meter), {:.0f} hosts, {:.0f} domains of {}\n",
      site.watts / 1e6, cluster.name, site.devices, cluster.power.all_in_w, site.hosts, site.domains,
      cluster.inner().devices);
  text += fmt::format("  peak       {:.3g} EFLOP/s in 16 bits, {:.3g} in 8\n", site.peak_bf16 / 1e18,
                      site.peak_fp8 / 1e18);
  text += fmt::format("  failures   {:.0f} a day, one every {}; {:.0f} hosts to spare\n", site.failures_per_day,
                      seconds_text(site.seconds_between_failures), site.spare_hosts);
  text += fmt::format("  one job    {:.0f} devices at {:.0f} % goodput; on everything {:.1f} %\n",
                      site.largest_job, 100 * site.target_goodput, 100 * site.whole_site_goodput);
  text += fmt::format("  a year     {:.3g} TWh, {:.3g} Mt CO2e of electricity, {:.2g} Mt of hardware\n",
                      site.energy_twh_per_year, site.co2_mt_per_year, site.embodied_mt_per_year);
  text += fmt::format("  money      {:.3g} G USD to build", site.capital_usd / 1e9);
  if (site.owned_usd_per_year > 0)
    text += fmt::format("; {:.3g} G USD a year to own", site.owned_usd_per_year / 1e9);
  return text + fmt::format("; {:.3g} G USD a year to rent\n", site.rented_usd_per_year / 1e9);
}

json facility_json(const GpuCluster& cluster, const Facility& site) {
  json causes;
  for (const FailureCause& cause : failure_causes()) causes[cause.name] = site.failures_per_day * cause.share;
  json sources = json::object();
  for (const auto& [key, source] : cluster.source) sources[key] = source;
  for (const auto& [key, source] : figures().at("source").items()) sources[key] = source;
  auto known = [](double value) { return value > 0 ? json(value) : json(nullptr); };
  return {{"cluster", cluster.name},
          {"power_w", site.watts},
          {"power_w_per_device", cluster.power.all_in_w},
          {"devices", site.devices},
          {"hosts", site.hosts},
          {"domains", site.domains},
          {"peak_bf16_flops", site.peak_bf16},
          {"peak_fp8_flops", site.peak_fp8},
          {"failures_per_day", site.failures_per_day},
          {"failures_per_day_by_cause", causes},
          {"seconds_between_failures", site.seconds_between_failures},
          {"spare_hosts", site.spare_hosts},
          {"largest_job_devices", site.largest_job},
          {"largest_job_goodput", site.target_goodput},
          {"whole_site_goodput", site.whole_site_goodput},
          {"energy_twh_per_year", site.energy_twh_per_year},
          {"co2_mt_per_year", site.co2_mt_per_year},
          {"embodied_mt_per_year", site.embodied_mt_per_year},
          {"capital_usd", site.capital_usd},
          {"owned_usd_per_year", known(site.owned_usd_per_year)},
          {"rented_usd_per_year", site.rented_usd_per_year},
          {"provenance", sources}};
}

}  // namespace tessera::plan
