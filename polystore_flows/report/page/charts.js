// Distributions of a measurement over groups of wells, and what separates the controls.

const MOST_GROUPS = 60;
const ROLES = ["sample", "negative control", "positive control"];
const ROLE_COLOURS = { "negative control": "#e69f00", "positive control": "#009e73" };
const ROLE_SHAPES = { "negative control": "square", "positive control": "triangle-up" };

// The wells with a number, each with the name of its group; groups in their natural order.
function grouped(data, column, grouping) {
  const rows = [];
  for (const [index, value] of column.values.entries()) {
    if (typeof value !== "number") continue;
    const well = data.wells[index];
    const role = data.roles[index] ? `${data.roles[index]} control` : "sample";
    rows.push({ value, group: show(grouping.values[index]), well: well.path, place: well.place, role });
  }
  const names = [...new Set(rows.map((row) => row.group))];
  names.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return { rows, names };
}

// Vega comes after our own scripts, so that the plate is drawn first.
const loaded = new Promise((resolve) => addEventListener("load", resolve));

// The same spot for the same well each time: its place, spread by the golden ratio.
const jitter = (place) => ((place * 0.618034) % 1) - 0.5;

class Charts {
  constructor(data, open) {
    this.data = data;
    this.open = open;
  }

  async draw(column, grouping) {
    const { rows, names } = grouped(this.data, column, grouping);
    const shown = new Set(names.slice(0, MOST_GROUPS));
    const here = rows.filter((row) => shown.has(row.group)).map((row) => ({ ...row, jitter: jitter(row.place) }));
    const box = byId("chart");
    byId("group-table").replaceChildren(this.summary(rows, names, grouping));
    if (!column.number || !here.length) {
      box.replaceChildren(element("p", { class: "quiet" }, column.number ? "No well has a value." : "A text has no distribution; colour by a number."));
      return;
    }
    await loaded;
    const spec = this.spec(column, grouping, here, [...shown]);
    const { view } = await vegaEmbed(box, spec, { ast: true, actions: false, mode: "vega-lite", renderer: "svg", tooltip: tooltipOf });
    view.addEventListener("click", (event, item) => item?.datum?.well && this.open(item.datum.place));
    if (names.length > MOST_GROUPS) box.append(element("p", { class: "quiet small" }, `${names.length - MOST_GROUPS} more groups are in the numbers below.`));
  }

  spec(column, grouping, rows, names) {
    const spec = structuredClone(this.data.distribution);
    const style = getComputedStyle(document.documentElement);
    const probe = (name) => {
      const dot = element("span");
      dot.style.color = `var(${name})`;
      document.body.append(dot);
      const colour = getComputedStyle(dot).color;
      dot.remove();
      return colour;
    };
    spec.datasets = { wells: rows };
    spec.description = `${column.title} by ${grouping.title}: ${names.length} groups, ${rows.length} wells`;
    spec.width = Math.max(Math.min(byId("chart").clientWidth - 80, names.length * 160), names.length * 26);
    spec.layer[0].mark.size = Math.min(44, (0.6 * spec.width) / names.length);
    spec.encoding.x.sort = names;
    spec.encoding.x.title = grouping.title;
    spec.encoding.y.title = column.title;
    const [ink, quiet, line, accent] = ["--ink", "--quiet", "--line", "--accent"].map(probe);
    const roles = ROLES.filter((role) => rows.some((row) => row.role === role));
    const points = spec.layer.at(-1).encoding;
    const reach = 0.45 * spec.layer[0].mark.size;
    points.xOffset.scale.range = [-reach, reach].map((side) => ({ expr: `bandwidth('x') / 2 + ${side}` }));
    points.color.scale = { domain: roles, range: roles.map((role) => ROLE_COLOURS[role] ?? accent) };
    points.color.legend = roles.length > 1 ? { title: null, orient: "top" } : null;
    points.shape.scale = { domain: roles, range: roles.map((role) => ROLE_SHAPES[role] ?? "circle") };
    points.shape.legend = points.color.legend;
    Object.assign(spec.config, { font: style.fontFamily, background: "transparent" });
    Object.assign(spec.config.axis, { labelColor: quiet, titleColor: quiet, gridColor: line, domainColor: line, tickColor: line });
    Object.assign(spec.config.legend, { labelColor: ink });
    Object.assign(spec.config.boxplot.box, { fill: quiet, stroke: quiet });
    Object.assign(spec.config.boxplot.median, { color: quiet });
    Object.assign(spec.config.boxplot.rule, { color: quiet });
    return spec;
  }

  summary(rows, names, grouping) {
    const table = names.map((name) => {
      const values = sorted(rows.filter((row) => row.group === name).map((row) => row.value));
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
      const sd = values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : null;
      return [name, values.length, mean, sd, quantile(values, 0.5), values[0], values.at(-1)];
    });
    return numberTable("Groups", [grouping.title, "wells", "mean", "SD", "median", "least", "largest"], table);
  }

  controls(index, column) {
    const box = byId("control-table");
    if (!box) return;
    const found = this.data.controls[index];
    if (!found) {
      box.replaceChildren(element("p", { class: "quiet" }, `${column.title} has too few wells with a value among the controls (two of each are needed).`));
      return;
    }
    const figures = [["Z′", found.z_prime], ["Robust Z′", found.robust_z_prime], ["SSMD", found.ssmd], ["Signal to background", found.signal_to_background]];
    const list = element("dl", { class: "figures" });
    for (const [name, value] of figures) {
      list.append(element("div", {}, element("dt", {}, name), element("dd", {}, value === null ? "–" : show(Number(value.toPrecision(3))))));
    }
    const rows = ["positive", "negative"].map((role) => {
      const { n, mean, sd, median, mad } = found[role];
      return [`${role} control`, n, mean, sd, mean ? (100 * sd) / Math.abs(mean) : null, median, mad];
    });
    box.replaceChildren(element("p", {}, column.title), list, numberTable("Controls", ["kind", "wells", "mean", "SD", "CV %", "median", "MAD"], rows));
  }
}

// Vega hands over a tooltip's text; it is shown as text.
function tooltipOf(handler, event, item, value) {
  const tip = byId("tip");
  tip.hidden = !value;
  if (!value) return;
  const { Well: well, ...rest } = value;
  tip.replaceChildren(element("strong", {}, well), ...Object.entries(rest).map(([name, text]) => element("span", {}, `${name}: ${text}`)));
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 14}px`;
}
