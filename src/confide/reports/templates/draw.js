// Draws the figures of the report from the data in the page, in the colours of the style sheet.
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  function percent(share) {
    return parseFloat((100 * share).toPrecision(6)) + "%";
  }

  function decades(floor) {
    const values = [];
    for (let k = Math.round(Math.log10(floor)); k <= 0; k += 1) values.push(Math.pow(10, k));
    return values;
  }

  // A logarithmic axis has no zero: what lies below the floor is drawn on it.
  const above = (floor) => (value) => Math.max(value, floor);

  function traces(figure, hover) {
    const all = [];
    if (figure.diagonal) {
      const ends = [figure.y_floor, 1];
      all.push({
        x: ends, y: ends, mode: "lines", hoverinfo: "skip",
        line: { color: colour("muted"), width: 1.2, dash: "dot" },
      });
    }
    for (const s of figure.series) {
      if (!s.band_x.length) continue;
      const clip = above(figure.y_floor);
      all.push({
        x: s.band_x.concat(s.band_x.slice().reverse()),
        y: s.high.map(clip).concat(s.low.map(clip).reverse()),
        mode: "lines", fill: "toself", hoverinfo: "skip",
        opacity: s.style === "corrected" ? 0.12 : 0.22, line: { width: 0 },
        fillcolor: colour(s.style === "null" ? "muted" : "series-" + s.colour),
      });
    }
    for (const s of figure.series) {
      const isNull = s.style === "null";
      all.push({
        x: s.x, y: s.y, mode: s.x.length > 1 ? "lines" : "markers",
        name: s.hover, hovertemplate: s.hover + "<br>" + hover + "<extra></extra>",
        line: {
          color: colour("series-" + s.colour), width: isNull ? 1.4 : s.style === "beside" ? 1.8 : 2.4,
          dash: isNull ? "dash" : "solid",
        },
        marker: { color: colour("series-" + s.colour) },
      });
    }
    return all;
  }

  function axis(title, more) {
    return Object.assign({
      title: { text: title, standoff: 8 }, automargin: true, fixedrange: true, zeroline: false,
      gridcolor: colour("rule"), linecolor: colour("muted"), ticks: "outside", ticklen: 4,
      tickcolor: colour("rule"),
    }, more);
  }

  function logarithmic(title, floor) {
    const values = decades(floor);
    return axis(title, {
      type: "log", range: [Math.log10(floor), 0.02], tickvals: values,
      ticktext: values.map(percent),
    });
  }

  const axes = {
    roc: (f) => ({
      xaxis: logarithmic("False-positive rate", f.x_floor),
      yaxis: logarithmic("True-positive rate", f.y_floor),
    }),
    survival: (f) => ({
      xaxis: axis("AUC of a patient", { range: [f.x_floor, 1.003], tickformat: ".1f", dtick: 0.1 }),
      yaxis: logarithmic("Patients at or above", f.y_floor),
    }),
  };
  const hovers = {
    roc: "false positives %{x:.3%}<br>true positives %{y:.3%}",
    survival: "AUC %{x:.3f}: %{y:.3%} of patients",
  };

  // The threshold that the slider marks, see slider.js.
  function marks(element) {
    const x = parseFloat(element.dataset.threshold);
    return Number.isNaN(x) ? [] : [{
      type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1,
      line: { color: colour("ink"), width: 1.5 },
    }];
  }

  function drawOne(name) {
    // Paper is white and narrow, whatever the screen is.
    const paper = root.classList.contains("printing");
    const element = document.getElementById("plot-" + name);
    const first = !element.classList.contains("js-plotly-plot");
    element.querySelectorAll(".fallback").forEach((e) => e.remove());
    const layout = Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      margin: { l: 8, r: 28, t: 8, b: 8 }, dragmode: false, hovermode: "closest",
      font: {
        family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink"),
      },
      shapes: marks(element),
      hoverlabel: { bgcolor: colour("panel"), font: { color: colour("ink") } },
    }, axes[name](figures[name]), paper ? { width: 600 } : { autosize: true });
    Plotly.react(element, traces(figures[name], hovers[name]), layout, {
      displayModeBar: false, responsive: !paper, scrollZoom: false, doubleClick: false,
    });
    if (!first) return;
    element.addEventListener("threshold", () => {
      Plotly.relayout(element, { shapes: marks(element) });
    });
  }

  const names = Object.keys(figures);
  const draw = () => names.forEach(drawOne);
  // One after the other when the page stands, so that it can be read and used meanwhile.
  addEventListener("load", () => {
    names.forEach((name, i) => setTimeout(() => drawOne(name), 50 * (i + 1)));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => { root.classList.add("printing"); draw(); });
  addEventListener("afterprint", () => { root.classList.remove("printing"); draw(); });
})();
