// Draws the pictures of a training plan from `plan`, the object that the page holds.
"use strict";
(() => {
  const { number, colors } = charts;
  const [GPUS, X, MONEY, RATE, MEMORY, FITS, NAME] = [0, 1, 2, 3, 4, 5, 6];

  function tooltip(p) {
    return `${p[NAME]}<br>${p[GPUS].toLocaleString("en")} devices, ${number(p[X])} ${plan.x.unit}<br>` +
      `${number(p[MONEY])} ${plan.money.unit}<br>${number(p[RATE])} tokens/s per device, ${number(p[MEMORY])} GiB` +
      (p[FITS] ? "" : "<br>does not fit");
  }
  // Every layout at every number of devices, by time and money: the cheapest lies low, the fastest left.
  function timeAndMoney() {
    const at = (p) => [p[X], p[MONEY], p];
    const counts = [...new Set(plan.points.map((p) => p[GPUS]))].sort((a, b) => a - b);
    const groups = counts.map((count, i) => ({ name: `${count.toLocaleString("en")} devices`, color: colors[i],
      data: plan.points.filter((p) => p[GPUS] === count && p[FITS]).map(at) })).filter((g) => g.data.length);
    charts.cloud("money-time", { name: plan.x.unit, type: "log" }, { name: plan.money.unit, type: "log" },
      groups, plan.front.map(at), (v) => tooltip(v[2]));
  }
  // The layouts of the devices asked for, by memory and speed.
  function memoryAndSpeed() {
    const at = (p) => [p[MEMORY], p[RATE], p];
    const own = plan.points.filter((p) => p[GPUS] === plan.gpus);
    const groups = [{ name: "fits", data: own.filter((p) => p[FITS]).map(at), color: colors[0] },
                    { name: "does not fit", data: own.filter((p) => !p[FITS]).map(at), color: colors[7] },
                    { name: "ranked", data: plan.best.map(at), color: "#c0392b", opacity: 1, size: 8, z: 4 }];
    charts.cloud("memory-speed", { name: "GiB of the fullest device", type: "log" }, { name: "tokens/s per device" },
      groups.filter((g) => g.data.length), [], (v) => tooltip(v[2]));
  }
  // A row for each stage, a box for each action: [kind, chunk, micro-batch, start, end, paired]. A pair shares its time:
  // the forward is the upper half, the backward the lower.
  const kinds = [["forward", "#2a6fbb"], ["backward", "#2c8a57"], ["backward, inputs", "#2c8a57"], ["backward, weights", "#b8860b"]];
  function timeline() {
    if (!plan.timeline) return;
    const stages = plan.timeline.stages, end = plan.timeline.end;
    const hint = document.getElementById("timeline-hint");
    charts.own("timeline", (place) => {
      const width = place.clientWidth, left = 30, high = Math.max(8, Math.min(26, 420 / stages.length)), foot = 34;
      const scale = (width - left - 6) / end, at = (t) => left + t * scale;
      let boxes = "", numbers = "";
      stages.forEach((actions, s) => {
        actions.forEach(([kind, chunk, micro, start, stop, paired]) => {
          const tall = paired ? (high - 2) / 2 : high - 2, y = s * high + 1 + (paired && kind ? tall : 0);
          const w = Math.max(0.3, (stop - start) * scale - (((stop - start) * scale > 3) ? 0.8 : 0));
          const shade = 1 - 0.45 * chunk / plan.timeline.chunks;
          boxes += `<rect x="${at(start).toFixed(1)}" y="${y.toFixed(1)}" width="${w.toFixed(1)}" height="${tall.toFixed(1)}" fill="${kinds[kind][1]}" opacity="${shade.toFixed(2)}"/>`;
          if (w > 13 && tall > 10)
            numbers += `<text x="${(at(start) + w / 2).toFixed(1)}" y="${(y + tall / 2 + 4).toFixed(1)}" text-anchor="middle">${micro + 1}</text>`;
        });
      });
      let axis = "";
      const bottom = stages.length * high;
      const every = Math.ceil(stages.length * 11 / bottom);
      stages.forEach((_, s) => { if (s % every === 0) axis += `<text x="${left - 6}" y="${s * high + high / 2 + 4}" text-anchor="end">${s}</text>`; });
      for (const t of charts.ticks(end, charts.narrow() ? 4 : 8))
        axis += `<text x="${at(t).toFixed(1)}" y="${bottom + 14}" text-anchor="middle">${number(t)}</text>`;
      axis += `<text x="${width / 2}" y="${bottom + 29}" text-anchor="middle">seconds</text>`;
      place.innerHTML = `<svg width="${width}" height="${bottom + foot}" font-family="system-ui" font-size="11">` +
        `<rect x="${left}" y="0" width="${width - left - 6}" height="${bottom}" fill="${charts.rule()}" opacity="0.45"/>` +
        `<g>${boxes}</g><g fill="#fff" font-size="10">${numbers}</g><g fill="${charts.soft()}">${axis}</g></svg>`;
      place.onpointermove = place.onpointerdown = (event) => {
        const box = place.getBoundingClientRect(), stage = Math.floor((event.clientY - box.top) / high);
        const t = (event.clientX - box.left - left) / scale;
        const lower = (event.clientY - box.top) % high > high / 2;
        const found = (stages[stage] || []).find((a) => a[3] <= t && t < a[4] && (!a[5] || lower === a[0] > 0));
        hint.textContent = found ? `stage ${stage}: ${kinds[found[0]][0]} of micro-batch ${found[2] + 1}` +
          (plan.timeline.chunks > 1 ? `, chunk ${found[1] + 1} of ${plan.timeline.chunks}` : "") +
          `, ${number(found[3])} to ${number(found[4])} s` : "";
      };
    });
  }

  timeAndMoney();
  memoryAndSpeed();
  if (!plan.best.length) return;
  charts.stacks("stages", "GiB", plan.memory.parts, plan.memory.rows.map((_, stage) => `stage ${stage}`), plan.memory.rows, plan.capacity);
  timeline();
  const names = plan.best.map((_, i) => String(i + 1));
  charts.stacks("time", "s", plan.time.parts, names, plan.time.rows);
  charts.pairs("money", names, { name: "cost", unit: plan.money.unit, data: plan.money.rows },
    { name: "energy", unit: plan.energy.unit, data: plan.energy.rows });
})();
