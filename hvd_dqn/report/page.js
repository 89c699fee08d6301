"use strict";
// Shows the values of a chart's lines at the pointer, or at a cursor moved by the arrow keys.
(() => {
  const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const steps = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const shown = (value, chart) => (chart.percent ? digits.format(100 * value) + " %" : digits.format(value));
  const place = (x, chart) => chart.time ? duration(x) : steps.format(x) + " env steps";
  const duration = (s) => s < 300 ? digits.format(s) + " s" : s < 14400 ? digits.format(s / 60) + " min" : digits.format(s / 3600) + " h";
  const checked = (group) => document.getElementById("group" + group)?.checked ?? true;

  function nearest(values, wanted) {
    let low = 0, high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] < wanted) low = middle; else high = middle;
    }
    return wanted - values[low] < values[high] - wanted ? low : high;
  }

  function row(line, swatch, value) {
    const made = document.createElement("div"), name = document.createElement("span"), number = document.createElement("b");
    if (swatch) made.append(swatch.cloneNode(true));
    name.textContent = line.name;
    number.textContent = value;
    made.append(name, number);
    return made;
  }

  for (const plot of document.querySelectorAll(".plot[data-chart]")) {
    const chart = JSON.parse(plot.dataset.chart), [left, top, width, height] = chart.box, [first, last] = chart.x;
    const cursor = document.createElement("div"), tip = document.createElement("div");
    cursor.className = "cursor";
    tip.className = "tip";
    tip.setAttribute("role", "status");
    cursor.hidden = tip.hidden = true;
    plot.append(cursor, tip);
    let at = null;

    const hide = () => { cursor.hidden = tip.hidden = true; };
    const show = (x) => {
      const lines = chart.lines.filter((line) => checked(line.group));
      if (!lines.length) return hide();
      const longest = lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
      at = longest.x[nearest(longest.x, x)];
      const scale = plot.querySelector("svg").clientWidth / 440, offset = (left + (width * (at - first)) / (last - first)) * scale;
      cursor.style.cssText = `left:${offset}px;top:${top * scale}px;height:${height * scale}px`;
      tip.replaceChildren(place(at, chart), ...lines.filter((line) => at >= line.x[0] && at <= line.x.at(-1)).map((line) => {
        const i = nearest(line.x, at), swatch = plot.closest("figure").querySelector(`[data-line="${line.group}-${+line.second}"] svg`) ?? document.querySelector(`label[for="group${line.group}"] svg`);
        const interval = line.low ? ` (${shown(line.low[i], chart)} to ${shown(line.high[i], chart)})` : "";
        return row(line, swatch, shown(line.y[i], chart) + interval);
      }));
      cursor.hidden = tip.hidden = false;
      const beyond = offset + 16 + tip.offsetWidth > plot.clientWidth;
      tip.style.left = Math.max(0, beyond ? offset - 16 - tip.offsetWidth : offset + 16) + "px";
    };
    const point = (event) => {
      const bounds = plot.getBoundingClientRect(), scale = bounds.width / 440;
      show(first + (((event.clientX - bounds.left) / scale - left) / width) * (last - first));
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide()); // a finger is lifted to read
    plot.addEventListener("focus", () => plot.matches(":focus-visible") && show(at ?? last));
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
      if (event.key === "Escape") hide();
      if (event.key === "Home" || event.key === "End") show(event.key === "Home" ? first : last);
      else if (step) {
        const lines = chart.lines.filter((line) => checked(line.group));
        if (!lines.length) return;
        const x = lines.reduce((a, b) => (b.x.length > a.x.length ? b : a)).x;
        show(x[Math.min(x.length - 1, Math.max(0, nearest(x, at ?? last) + step))]);
      } else return;
      event.preventDefault();
    });
  }
})();
