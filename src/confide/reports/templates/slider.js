// The slider below the survival curve: says what the audit found at a threshold, and marks it.
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const input = document.getElementById("threshold");
  if (!input || !figures.survival || !figures.survival.slider) return;
  const { at, said } = figures.survival.slider;
  const plot = document.getElementById("plot-survival");
  const box = input.closest(".slider");
  const output = box.querySelector("output");

  function show() {
    // Only thresholds that the audit computed: the nearest of them.
    const x = parseFloat(input.value);
    let i = 0;
    at.forEach((value, k) => { if (Math.abs(value - x) < Math.abs(at[i] - x)) i = k; });
    input.setAttribute("aria-valuetext", "AUC " + at[i].toFixed(3));
    if (output.textContent !== said[i]) output.textContent = said[i];
    plot.dataset.threshold = String(at[i]);
    plot.dispatchEvent(new Event("threshold"));
  }

  input.value = "0.8";
  box.hidden = false;
  input.addEventListener("input", show);
  show();
})();
