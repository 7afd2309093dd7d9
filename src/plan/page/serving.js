// Draws the pictures of a serving plan from `plan`, the object that the page holds.
"use strict";
(() => {
  const number = charts.number;
  const point = (p) => [p.user, p.gpu, p.name, p.running];
  const group = (name, apart) => ({ name, data: plan.points.filter((p) => p.disaggregated === apart).map(point) });
  charts.cloud("pareto", { name: "tokens/s per user" }, { name: "tokens/s per accelerator" },
    [group("aggregated", false), group("disaggregated", true)].filter((g) => g.data.length), plan.front.map(point),
    (v) => `${v[2]}<br>${number(v[0])} tokens/s per user<br>${number(v[1])} tokens/s per accelerator<br>` +
      `${Math.round(v[3])} requests at once`);
  if (!plan.time.rows.length) return;

  const names = plan.time.rows.map((_, i) => String(i + 1));
  charts.stacks("memory", "GB", plan.memory.parts, plan.memory.names, plan.memory.rows, plan.capacity);
  charts.stacks("time", "ms", plan.time.parts, names, plan.time.rows);
  charts.pairs("money", names, { name: "cost", unit: "USD per million tokens", data: plan.money.usd },
    { name: "energy", unit: "J per token", data: plan.money.joules });
})();
