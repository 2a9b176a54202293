// From a column's values to colours: viridis for numbers, the Okabe-Ito colours for texts. Both
// are told apart by colour-blind people, and viridis becomes an even ramp in grey.

// Sixteen even steps of viridis (van der Walt and Smith, 2015, CC0).
const VIRIDIS = "440154481a6c472f7d41448739568c31688e2a788e23888e1f988b22a88435b77954c5687ad151a5db36d2e21bfde725".match(/.{6}/g);
const CATEGORY_COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const OTHER = "#9aa3ad";

function sorted(values) {
  return values.filter((value) => typeof value === "number").sort((a, b) => a - b);
}

// Linear interpolation between the closest ranks, as NumPy does it.
function quantile(ordered, share) {
  const place = (ordered.length - 1) * share;
  const low = Math.floor(place);
  const next = ordered[Math.min(low + 1, ordered.length - 1)];
  return ordered[low] + (next - ordered[low]) * (place - low);
}

function inkOn(colour) {
  const [r, g, b] = colour.match(/[0-9a-f]{2}/gi).map((part) => {
    const light = parseInt(part, 16) / 255;
    return light <= 0.04045 ? light / 12.92 : ((light + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

// The colour at `share`, from 0 to 1, of the ramp.
function viridis(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const [a, b] = [VIRIDIS[low], VIRIDIS[low + 1]].map((colour) => colour.match(/../g).map((part) => parseInt(part, 16)));
  const mixed = a.map((part, i) => Math.round(part + (b[i] - part) * (place - low)));
  return "#" + mixed.map((part) => part.toString(16).padStart(2, "0")).join("");
}

function numberScale(column, clip) {
  const values = sorted(column.values);
  const [low, high] = clip && values.length ? [quantile(values, 0.02), quantile(values, 0.98)] : [values[0], values.at(-1)];
  const clipped = values.length > 0 && (low > values[0] || high < values.at(-1));
  return {
    colour: (value) => viridis(high > low ? (value - low) / (high - low) : 0.5),
    legend() {
      const bar = element("span", { class: "bar" });
      const stops = Array.from({ length: 11 }, (_, i) => viridis(i / 10));
      bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      const ends = clipped ? ["≤ ", "≥ "] : ["", ""];
      return [element("span", {}, column.title), element("span", { class: "ramp" }, ends[0] + show(low), bar, ends[1] + show(high))];
    },
  };
}

function textScale(column) {
  const counts = new Map();
  for (const value of column.values) if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
  const common = [...counts].sort((a, b) => b[1] - a[1]).slice(0, CATEGORY_COLOURS.length).map(([name]) => name);
  const names = common.sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
  const colour = (value) => CATEGORY_COLOURS[names.indexOf(value)] ?? OTHER;
  return {
    colour,
    legend() {
      const keys = names.map((name) => [show(name), colour(name)]);
      if (counts.size > names.length) keys.push([`${counts.size - names.length} others`, OTHER]);
      const swatches = keys.map(([name, paint]) => {
        const swatch = element("span", { class: "swatch" });
        swatch.style.background = paint;
        return element("span", { class: "key" }, swatch, name);
      });
      return [element("span", {}, column.title), ...swatches];
    },
  };
}

function scaleOf(column, clip) {
  return column.number ? numberScale(column, clip) : textScale(column);
}
