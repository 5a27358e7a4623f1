// Runs before anything is drawn, so that a page in dark colours does not flash white.
"use strict";

{
  let theme = "auto";
  try {
    theme = JSON.parse(localStorage.getItem("edgesppo.preferences"))?.theme ?? theme;
  } catch {
    // A browser that keeps nothing: its own colours.
  }
  document.documentElement.dataset.theme = theme;
}
