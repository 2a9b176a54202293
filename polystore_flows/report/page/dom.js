// Small helpers. Text goes in as text nodes only: nothing that a plate says becomes markup.

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
const small = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "scientific" });

function show(value) {
  if (value === null || value === undefined) return "no value";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  const size = Math.abs(value);
  return (size !== 0 && (size < 1e-3 || size >= 1e7) ? small : digits).format(value);
}

function pairs(entries) {
  const list = element("dl", { class: "pairs" });
  for (const [name, value, chosen] of entries) {
    const row = element("div", chosen ? { class: "chosen" } : {});
    row.append(element("dt", {}, name), element("dd", {}, value));
    list.append(row);
  }
  return list;
}

// In a room of its own that scrolls, and can be scrolled by keyboard.
function numberTable(label, head, rows) {
  const table = element("table", { class: "numbers" });
  const top = element("tr");
  for (const name of head) top.append(element("th", { scope: "col" }, name));
  table.append(element("thead", {}, top));
  const body = element("tbody");
  for (const [first, ...rest] of rows) {
    const row = element("tr", {}, element("th", { scope: "row" }, show(first)));
    for (const value of rest) row.append(element("td", {}, value === null ? "–" : show(value)));
    body.append(row);
  }
  table.append(body);
  return element("div", { class: "scroll", role: "group", "aria-label": label, tabIndex: 0 }, table);
}

function checkbox(text, checked, colour, onchange) {
  const box = element("input", { type: "checkbox", checked, onchange: () => onchange(box.checked) });
  const dot = colour ? element("span", { class: "dot" }) : null;
  if (dot) dot.style.background = colour;
  return element("label", {}, box, dot, text);
}
