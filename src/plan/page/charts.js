// What the pages of training and serving share: axes, stacked bars, clouds of points, drawing again for another
// width, the dark and paper.
"use strict";
const charts = (() => {
  const colors = ["#2a6fbb", "#c7651a", "#2c8a57", "#8a52a8", "#b8860b", "#c2487c", "#3b8f95", "#7a7f87", "#5f7d2e", "#a04000"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();  // id -> { chart, option } or { draw }
  let printing = false;

  const soft = () => dark.matches && !printing ? "#a0a5ae" : "#62666f";
  const rule = () => dark.matches && !printing ? "#363a41" : "#dcdcd8";
  const narrow = () => innerWidth < 600 && !printing;

  function number(value) {
    const size = Math.abs(value), unit = size >= 1e9 ? [1e9, " G"] : size >= 1e6 ? [1e6, " M"] : size >= 1e5 ? [1e3, " k"] : [1, ""];
    return String(+(value / unit[0]).toPrecision(size >= 1000 && size < 1e5 ? 4 : 3)) + unit[1];
  }
  // Round figures that divide 0 to `end` into at most `most` steps.
  function ticks(end, most) {
    const rough = end / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((size) => size >= rough);
    return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, i) => i * step);
  }

  const axis = (name, extra) => Object.assign({ name, nameLocation: "middle", nameGap: 30, type: "value",
    nameTextStyle: { color: soft() }, splitLine: { lineStyle: { color: rule() } },
    axisLine: { lineStyle: { color: rule() } } }, extra,
    { axisLabel: Object.assign({ color: soft(), formatter: number, hideOverlap: true }, extra && extra.axisLabel) });
  const legend = () => ({ top: 0, itemGap: 12, textStyle: { color: soft() } });
  // Where a chart begins below its legend, which wraps.
  function below(id, names) {
    const width = names.reduce((sum, name) => sum + 50 + 6.6 * name.length, 0);
    return 14 + 23 * Math.ceil(width / (document.getElementById(id).clientWidth - 10));
  }

  function show(entry) {
    if (entry.draw) return entry.draw();
    entry.chart.resize();
    entry.chart.setOption(Object.assign({ color: colors, animation: false, textStyle: { fontFamily: "system-ui" } },
      entry.option()), true);
  }

  // `option` is a function, because colours and sizes depend on where it is shown.
  function add(id, option) {
    const entry = { chart: echarts.init(document.getElementById(id), null, { renderer: "svg" }), option };
    drawn.set(id, entry);
    show(entry);
  }

  // Stacked bars: `values[row][part]`, rows from the top; `limit` is a line that they should stay below. Parts
  // that are nothing anywhere are left out.
  function stacks(id, unit, names, rows, values, limit) {
    const parts = names.map((name, index) => ({ name, index })).filter((p) => values.some((row) => row[p.index] > 0));
    document.getElementById(id).style.height = `${Math.max(220, 110 + (rows.length > 12 ? 15 : 28) * rows.length)}px`;
    add(id, () => ({ legend: legend(), grid: { left: 8, right: 26, top: below(id, parts.map((p) => p.name)) + (limit ? 12 : 0), bottom: 44, containLabel: true },
      tooltip: { trigger: "axis", confine: true, axisPointer: { type: "shadow" }, valueFormatter: (v) => `${number(v)} ${unit}` },
      xAxis: axis(unit, limit ? { max: (range) => Math.max(range.max, limit) * 1.02 } : {}),
      yAxis: { type: "category", data: rows, inverse: true, axisLabel: { color: soft() }, axisTick: { show: false },
        axisLine: { lineStyle: { color: rule() } } },
      series: parts.map((part, p) => ({ name: part.name, type: "bar", stack: "all", barMaxWidth: 22,
        color: colors[part.index % colors.length], data: values.map((row) => row[part.index]),
        markLine: limit && p === 0 ? { symbol: "none", silent: true, lineStyle: { color: "#c0392b", type: "dashed" },
          label: { position: "insideStartTop", rotate: 0, offset: [-28, 0], formatter: `${number(limit)} ${unit}`, color: "#c0392b" }, data: [{ xAxis: limit }] } : undefined })) }));
  }

  // Two figures of each row, each with an axis of its own.
  function pairs(id, rows, first, second) {
    document.getElementById(id).style.height = `${Math.max(260, 140 + 26 * rows.length)}px`;
    add(id, () => ({ legend: legend(), grid: { left: 8, right: 26, top: 72, bottom: 44, containLabel: true },
      tooltip: { trigger: "axis", confine: true, axisPointer: { type: "shadow" }, valueFormatter: number },
      xAxis: [axis(first.unit), axis(second.unit, { position: "top", nameGap: 24, splitLine: { show: false } })],
      yAxis: { type: "category", data: rows, inverse: true, axisLabel: { color: soft() }, axisTick: { show: false },
        axisLine: { lineStyle: { color: rule() } } },
      series: [{ name: first.name, type: "bar", barMaxWidth: 10, data: first.data },
               { name: second.name, type: "bar", barMaxWidth: 10, xAxisIndex: 1, data: second.data }] }));
  }

  // Points of several groups [{ name, data: [[x, y, ...]], color }] and a line, as through the best ones.
  function cloud(id, x, y, groups, front, tooltip, line = "front") {
    add(id, () => ({ legend: legend(), grid: { left: 66, right: 18, top: below(id, [...groups.map((g) => g.name), line]), bottom: 48 },
      tooltip: { confine: true, formatter: (p) => tooltip(p.value) },
      xAxis: axis(x.name, x), yAxis: axis(y.name, Object.assign({ nameGap: 50 }, y)),
      series: groups.map((g) => ({ name: g.name, type: "scatter", symbolSize: g.size || 6, data: g.data, z: g.z || 2,
        itemStyle: { opacity: g.opacity || 0.65, color: g.color, borderColor: g.border, borderWidth: g.border ? 1 : 0 } }))
        .concat(front.length ? [{ name: line, type: "line", symbolSize: 8, z: 4, color: "#c0392b", lineStyle: { width: 2, color: "#c0392b" },
          itemStyle: { color: "#c0392b" }, data: front }] : []) }));
  }

  // A drawing of the page's own: `draw(element)` fills it.
  function own(id, draw) {
    const entry = { draw: () => draw(document.getElementById(id)) };
    drawn.set(id, entry);
    show(entry);
  }

  const again = () => drawn.forEach(show);
  function print(on) {
    printing = on;
    document.documentElement.classList.toggle("print", on);
    again();
  }
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(again); });
  dark.addEventListener("change", again);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  return { colors, number, ticks, soft, rule, narrow, add, stacks, pairs, cloud, own };
})();
