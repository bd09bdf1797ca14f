(() => {
  "use strict";
  const tip = document.getElementById("tip");
  const charts = [...document.querySelectorAll("svg.chart[data-chart]")].filter(s => DATA[s.dataset.chart]);
  const three = x => x === 0 ? "0" : Math.abs(x) >= 999.5 ? Math.round(x).toLocaleString("en") : String(+x.toPrecision(3));
  const scaled = (x, base, units) => {
    let i = 0;
    while (Math.abs(x) >= base * 0.9995 && i < units.length - 1) { x /= base; i++; }
    return three(x) + units[i];
  };
  const unit = {
    ns: x => scaled(x, 1000, [" ns", " µs", " ms", " s"]),
    B: x => scaled(x, 1024, [" B", " KiB", " MiB", " GiB"]),
    n: x => Math.round(x).toLocaleString("en"),
    cpu: x => three(x),
  };
  const num = (s, name) => +s.dataset[name];
  const hide = () => {
    tip.hidden = true;
    for (const s of charts) s.querySelector(".hair").style.opacity = 0;
  };
  const show = (svg, event) => {
    const box = svg.getBoundingClientRect(), w = svg.viewBox.baseVal.width;
    const x0 = num(svg, "x0"), x1 = num(svg, "x1"), lo = num(svg, "min"), hi = num(svg, "max");
    const at = lo + ((event.clientX - box.left) * w / box.width - x0) / (x1 - x0) * (hi - lo);
    const d = DATA[svg.dataset.chart];
    if (at < lo || at > hi || !d.x || !d.x.length) return hide();
    let k = 0;
    for (let i = 1; i < d.x.length; i++) if (Math.abs(d.x[i] - at) < Math.abs(d.x[k] - at)) k = i;
    const t = d.x[k];
    for (const s of charts) {
      const a = num(s, "x0"), b = num(s, "x1"), x = a + (t - num(s, "min")) / (num(s, "max") - num(s, "min")) * (b - a);
      const hair = s.querySelector(".hair");
      hair.setAttribute("x1", x);
      hair.setAttribute("x2", x);
      hair.style.opacity = 0.7;
    }
    const table = document.createElement("table");
    const row = (...cells) => {
      const tr = table.insertRow();
      for (const c of cells) tr.insertCell().textContent = c;
    };
    row("at", three(t) + " s");
    for (const l of d.lines) {
      const v = l.y[k];
      row(l.name, v == null ? "–" : unit[d.unit](v));
    }
    tip.replaceChildren(table);
    tip.hidden = false;
    const room = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 16, innerWidth - room.width - 8)) + "px";
    tip.style.top = Math.max(4, Math.min(event.clientY + 16, innerHeight - room.height - 8)) + "px";
  };
  for (const s of charts) {
    s.addEventListener("pointermove", e => show(s, e));
    s.addEventListener("pointerdown", e => show(s, e));
    s.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });
})();
