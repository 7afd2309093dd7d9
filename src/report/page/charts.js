// Replaces each drawn line chart by one to zoom (drag; double click to go back) and to read values from.
(() => {
  "use strict";
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Reference lines: horizontal ones dashed, vertical ones in the colour of alarms.
  const drawMarks = (data) => (plot) => {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.lineWidth = ratio;
    for (const mark of data.horizontal || []) {
      const y = plot.valToPos(mark.at, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.strokeStyle = ctx.fillStyle = color("--soft");
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
      ctx.textAlign = "right";
      ctx.fillText(mark.label, bbox.left + bbox.width - 4 * ratio, y - 5 * ratio);
    }
    ctx.setLineDash([]);
    ctx.textAlign = "left";
    for (const mark of data.vertical || []) {
      const x = plot.valToPos(mark.at, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = ctx.fillStyle = color("--alarm");
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
      ctx.fillText(mark.label, x + 4 * ratio, bbox.top + 12 * ratio);
    }
    ctx.restore();
  };

  // The y axis must hold the horizontal marks, too.
  const yRange = (data) => (plot, low, high) => {
    const marks = (data.horizontal || []).map((mark) => mark.at);
    low = Math.min(low ?? Infinity, ...marks);
    high = Math.max(high ?? -Infinity, ...marks);
    const margin = (high - low || Math.abs(high) || 1) * 0.06;
    return [data.from_zero ? 0 : low - margin, high + margin];
  };

  const build = (figure) => {
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const axis = { stroke: color("--soft"), grid: { stroke: color("--rule"), width: 1 }, ticks: { stroke: color("--rule"), width: 1 } };
    const series = data.series.map((one, index) => ({
      label: one.name, stroke: color(`--s${index + 1}`), width: 1.8, spanGaps: true,
      points: { show: one.dots || undefined, size: 7 },
      value: (plot, value) => value == null ? "–" : value.toPrecision(4),
    }));
    return new uPlot({
      width: figure.clientWidth, height: 280,
      scales: { x: { time: false }, y: { range: yRange(data) } },
      axes: [{ ...axis, label: data.x_name, labelSize: 22 }, { ...axis, size: 64 }],
      series: [{ label: data.x_name }, ...series],
      hooks: { draw: [drawMarks(data)] },
    }, data.columns, figure);
  };

  let plots = [];
  const buildAll = () => {
    plots.forEach((plot) => plot.destroy());
    plots = [...document.querySelectorAll("figure.chart")].map((figure) => {
      figure.classList.add("live");
      return build(figure);
    });
  };
  buildAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", buildAll);
  addEventListener("resize", () => plots.forEach((plot) =>
    plot.setSize({ width: plot.root.parentElement.clientWidth, height: 280 })));
})();
