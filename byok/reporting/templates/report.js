"use strict";
// The filter of the rows. Its state stands in the address (#q=text&result=failed), so a filtered page can be passed on.
const rows = [...document.querySelectorAll("details.row")];
const query = document.getElementById("query");
const result = document.getElementById("result");
const shown = document.getElementById("shown");

function apply() {
  const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = (!result.value || row.dataset.result === result.value) && words.every((word) => text.includes(word));
    row.hidden = !fits;
    count += fits;
  }
  shown.textContent = `${count} of ${rows.length} rows`;
}

function read() {
  const state = new URLSearchParams(location.hash.slice(1));
  query.value = state.get("q") || "";
  result.value = state.get("result") || "";
  apply();
}

function write() {
  const state = new URLSearchParams();
  if (query.value) state.set("q", query.value);
  if (result.value) state.set("result", result.value);
  history.replaceState(null, "", `#${state}`);
  apply();
}

query.addEventListener("input", write);
result.addEventListener("input", write);
addEventListener("hashchange", read);
read();
