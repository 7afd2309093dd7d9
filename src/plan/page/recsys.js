// Draws the pictures of a recommender's plan from `plan`, the object that the page holds.
"use strict";
(() => {
  if (!plan.usd.length) return;
  const number = charts.number;
  // A point: [USD an hour, samples/s, layout, USD per billion samples, what bounds it].
  charts.cloud("rate-money", { name: "USD an hour", type: "log" }, { name: "samples/s" },
    [{ name: "rows on servers", data: plan.servers }, { name: "rows on devices", data: plan.trainers }].filter((g) => g.data.length),
    plan.front, (v) => `${v[2].replace(/,/g, ", ")}<br>${number(v[1])} samples/s, ${number(v[0])} USD an hour<br>` +
      `${number(v[3])} USD per billion samples<br>bound by ${v[4]}`);
  charts.stacks("needs", "ms", ["needed"], plan.needs.names, plan.needs.rows, plan.needs.step);
  charts.cloud("staleness", { name: "batches in flight of a trainer", type: "log", logBase: 2 }, { name: "samples/s", min: 0 },
    [], plan.staleness, (v) => `${v[0]} in flight: ${number(v[1])} samples/s<br>${number(v[2])} % of look-ups are stale<br>bound by ${v[3]}`, "best layout");
  charts.stacks("memory", "%", plan.memory.parts, plan.memory.names, plan.memory.rows, plan.memory.limit);
  charts.pairs("money", plan.usd.map((_, i) => String(i + 1)), { name: "cost", unit: "USD per billion samples", data: plan.usd },
    { name: "energy", unit: "kWh per billion samples", data: plan.kwh });
})();
