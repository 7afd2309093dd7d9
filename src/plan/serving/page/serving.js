// Draws the pictures of a serving plan from `plan`, the object that the page holds.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const soft = dark ? "#a0a5ae" : "#62666f", rule = dark ? "#363a41" : "#dcdcd8";
  const colors = ["#2a6fbb", "#c7651a", "#2c8a57", "#8a52a8", "#b8860b", "#c2487c", "#3b8f95", "#7a7f87", "#5f7d2e", "#a04000"];
  const charts = [];

  const axis = (name, extra) => Object.assign({ name, nameLocation: "middle", nameGap: 30, nameTextStyle: { color: soft },
    axisLabel: { color: soft }, splitLine: { lineStyle: { color: rule } } }, extra);
  const number = (value) => value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

  function draw(id, option) {
    const chart = echarts.init(document.getElementById(id), null, { renderer: "svg" });
    chart.setOption(Object.assign({ color: colors, animation: false, textStyle: { fontFamily: "system-ui" } }, option));
    charts.push(chart);
  }

  function pareto() {
    const kinds = [["aggregated", false], ["disaggregated", true]];
    const series = kinds.map(([name, apart]) => ({ name, type: "scatter", symbolSize: 5, itemStyle: { opacity: 0.45 },
      data: plan.points.filter((p) => p.disaggregated === apart).map((p) => [p.user, p.gpu, p.name, p.running]) }));
    series.push({ name: "front", type: "line", symbolSize: 7, lineStyle: { width: 2 },
      data: plan.front.map((p) => [p.user, p.gpu, p.name, p.running]) });
    draw("pareto", { legend: { top: 0, textStyle: { color: soft } }, grid: { left: 62, right: 16, top: 34, bottom: 48 },
      tooltip: { confine: true, formatter: (p) => `${p.value[2]}<br>${number(p.value[0])} tokens/s per user<br>` +
        `${number(p.value[1])} tokens/s per accelerator<br>${Math.round(p.value[3])} requests at once` },
      xAxis: axis("tokens/s per user", { type: "value" }),
      yAxis: axis("tokens/s per accelerator", { type: "value", nameGap: 46 }), series });
  }

  // Stacked bars, one per ranked deployment, the best on top.
  function stacks(id, unit, parts, value) {
    const names = plan.ranked.map((_, i) => String(i + 1));
    draw(id, { legend: { top: 0, type: "scroll", textStyle: { color: soft } },
      grid: { left: 8, right: 24, top: 34, bottom: 44, containLabel: true },
      tooltip: { trigger: "axis", confine: true, axisPointer: { type: "shadow" }, valueFormatter: (v) => `${number(v)} ${unit}` },
      xAxis: axis(unit, { type: "value" }),
      yAxis: { type: "category", data: names, inverse: true, axisLabel: { color: soft } },
      series: parts.map((part) => ({ name: part, type: "bar", stack: "all", barMaxWidth: 26,
        data: plan.ranked.map((r) => value(r, part)) })) });
  }

  function money() {
    const names = plan.ranked.map((_, i) => String(i + 1));
    draw("money", { legend: { top: 0, textStyle: { color: soft } }, grid: { left: 8, right: 24, top: 34, bottom: 44, containLabel: true },
      tooltip: { trigger: "axis", confine: true, axisPointer: { type: "shadow" }, valueFormatter: number },
      xAxis: [axis("USD per million tokens", { type: "value" }),
              axis("J per token", { type: "value", position: "top", nameGap: 22, splitLine: { show: false } })],
      yAxis: { type: "category", data: names, inverse: true, axisLabel: { color: soft } },
      series: [{ name: "cost", type: "bar", data: plan.ranked.map((r) => r.usd) },
               { name: "energy", type: "bar", xAxisIndex: 1, data: plan.ranked.map((r) => r.joules) }] });
  }

  pareto();
  stacks("memory", "GB", ["weights", "workspace", "cache"], (r, part) => r.memory[part]);
  stacks("time", "ms", Object.keys(plan.ranked.length ? plan.ranked[0].time : {}), (r, part) => r.time[part]);
  money();
  const fit = () => charts.forEach((chart) => chart.resize());
  addEventListener("resize", fit);
  addEventListener("beforeprint", fit);
})();
