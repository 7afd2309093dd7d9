'use strict';
// Asks the server once a second and draws the last ten minutes.
const POINTS = 600, COLOURS = ['#2e6fdb', '#e07b00', '#c0362c'];
const DARK = matchMedia('(prefers-color-scheme: dark)').matches;
const INK = DARK ? '#98a2b3' : '#667085', GRID = DARK ? '#2a313b' : '#e6e9ee';
const milliseconds = seconds => seconds * 1000;
const CHARTS = [
  {title: 'Requests', unit: '', series: [['running', now => now.running], ['waiting', now => now.waiting]]},
  {title: 'Tokens per second', unit: '', series: [['generated', (now, rate) => rate('generated_tokens')], ['prompt', (now, rate) => rate('prompt_tokens')]]},
  {title: 'Tokens in a step', unit: '', series: [['mean', (now, rate) => rate('steps') ? rate('step_tokens') / rate('steps') : null]]},
  {title: 'KV cache in use', unit: '%', range: [0, 100], series: [['blocks', now => 100 * now.kv_usage]]},
  latency('Time to first token', 'first_token'), latency('Between two tokens', 'per_token'), latency('Whole request', 'latency'),
  {title: 'Requests per second', unit: '', series: [['ended', (now, rate) => rate('ended')], ['failed', (now, rate) => rate('failed')]]},
];
function latency(title, name) {
  return {title, unit: ' ms', series: ['p50', 'p95', 'p99'].map((label, i) => [label, now => milliseconds(now[name][i])])};
}
const short = value => value == null ? '–' : Math.abs(value) >= 1e6 ? (value / 1e6).toFixed(1) + 'M' : Math.abs(value) >= 1e4 ? (value / 1e3).toFixed(1) + 'k'
  : Math.abs(value) >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);

const histories = new Map();  // model -> {last, data of each chart}
const plots = [];
let chosen = null, key = sessionStorage.getItem('tessera-key') || '';

function historyOf(model) {
  if (!histories.has(model)) histories.set(model, {last: null, tiles: {}, data: CHARTS.map(chart => [[], ...chart.series.map(() => [])])});
  return histories.get(model);
}

function record(now, time) {
  const history = historyOf(now.name), last = history.last;
  const rate = field => last ? Math.max(0, (now[field] - last[field]) / Math.max(time - last.time, 1e-3)) : null;
  CHARTS.forEach((chart, i) => {
    const data = history.data[i];
    data[0].push(time);
    chart.series.forEach(([, value], k) => data[k + 1].push(value(now, rate)));
    if (data[0].length > POINTS) data.forEach(column => column.shift());
  });
  history.tiles = {
    'running': now.running, 'waiting': now.waiting, 'generated tokens/s': rate('generated_tokens'), 'KV cache': short(100 * now.kv_usage) + ' %',
    'first token, p95': short(milliseconds(now.first_token[1])) + ' ms', 'per token, p95': short(milliseconds(now.per_token[1])) + ' ms',
    'prefix hits': now.prefix_queries ? short(100 * now.prefix_hits / now.prefix_queries) + ' %' : '–', 'requests ended': now.ended,
  };
  history.last = {...now, time};
}

function drawTiles(tiles) {
  document.getElementById('tiles').replaceChildren(...Object.entries(tiles).map(([label, value]) => {
    const tile = document.createElement('div'), number = document.createElement('b'), text = document.createElement('span');
    tile.className = 'tile';
    number.textContent = typeof value === 'string' ? value : short(value);
    text.textContent = label;
    tile.append(number, text);
    return tile;
  }));
}

function widthOf(box) { return Math.max(200, box.clientWidth - 16); }

function makeCharts() {
  for (const chart of CHARTS) {
    const box = document.createElement('div'), title = document.createElement('h2');
    box.className = 'chart';
    title.textContent = chart.title;
    box.append(title);
    document.getElementById('charts').append(box);
    // Under the pointer, or else the last.
    const text = (plot, value, series, at) => {
      const shown = at == null ? plot.data[series].at(-1) : value;
      return shown == null ? '–' : short(shown) + chart.unit;
    };
    const axis = {stroke: INK, grid: {stroke: GRID, width: 1}, ticks: {stroke: GRID}};
    const plot = new uPlot({
      width: widthOf(box), height: 170, padding: [8, 8, 0, 0], cursor: {points: {size: 6}},
      scales: {y: {range: (plot, low, high) => chart.range || [0, Math.max(high * 1.1, 1e-3) || 1]}},
      axes: [axis, {...axis, size: 72, values: (plot, values) => values.map(value => short(value) + chart.unit)}],
      series: [{value: (plot, value) => value == null ? 'now' : new Date(1000 * value).toLocaleTimeString()}, ...chart.series.map(([label], i) => ({label, stroke: COLOURS[i], width: 1.5, value: text, points: {show: false}}))],
    }, [[], ...chart.series.map(() => [])], box);
    plots.push({plot, box});
  }
  addEventListener('resize', () => plots.forEach(({plot, box}) => plot.setSize({width: widthOf(box), height: 170})));
}

function draw() {
  const history = histories.get(chosen);
  if (!history) return;
  drawTiles(history.tiles);
  plots.forEach(({plot}, i) => plot.setData(history.data[i]));
}

function showModels(names) {
  const select = document.getElementById('model');
  if ([...select.options].map(option => option.value).join('\n') !== names.join('\n'))
    select.replaceChildren(...names.map(name => new Option(name, name, false, name === chosen)));
  if (!names.includes(chosen)) chosen = names[0] ?? null;
  if (chosen !== null) select.value = chosen;
}

function say(text, bad) {
  const state = document.getElementById('state');
  state.textContent = text;
  state.className = bad ? 'bad' : '';
}

async function ask() {
  const response = await fetch('live/data', {cache: 'no-store', headers: key ? {Authorization: 'Bearer ' + key} : {}});
  document.getElementById('key').hidden = response.status !== 401;
  if (response.status === 401) return say('this server wants an API key', true);
  const body = await response.json();
  body.models.filter(model => model.state === 'READY').forEach(model => record(model, body.time));
  showModels(body.models.filter(model => histories.has(model.name)).map(model => model.name));
  const now = body.models.find(model => model.name === chosen);
  say(!now ? 'no model is ready' : now.health || now.state.toLowerCase(), !now || !!now.health || now.state !== 'READY');
  draw();
}

async function tick() {
  try { await ask(); } catch (error) { say('the server does not answer', true); }
  setTimeout(tick, 1000);
}

document.getElementById('model').addEventListener('change', event => { chosen = event.target.value; draw(); });
document.getElementById('key').addEventListener('submit', event => {
  event.preventDefault();
  key = event.target.querySelector('input').value;
  sessionStorage.setItem('tessera-key', key);
});
makeCharts();
tick();
