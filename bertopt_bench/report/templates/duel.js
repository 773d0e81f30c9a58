"use strict";
(async () => {
  if (!Shell.usable) return;
  const data = JSON.parse(await Shell.unpack("data-packed"));
  document.documentElement.classList.add("live");

  // A link into something folded unfolds it.
  const reveal = () => {
    const target = location.hash.length > 1 && Shell.$(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((e) => { e.open = true; }));

  Shell.contents();
  Shell.downloads(data.tables);
  reveal();
  document.documentElement.dataset.ready = "yes";
})();
