"use strict";
// What all pages do: unpack data, follow the reader through the contents, offer the tables as CSV.
const Shell = {
  usable: "DecompressionStream" in window, // the tables stand without scripts
  $: (id) => document.getElementById(id),
  element: (tag, properties = {}, ...children) => { const e = Object.assign(document.createElement(tag), properties); e.append(...children); return e; },

  async unpack(id) {
    const bytes = Uint8Array.from(atob(Shell.$(id).textContent.trim()), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  },

  // Scroll without losing what the address says, and mark the section in view.
  contents() {
    const narrow = matchMedia("(max-width: 1079px)"), rail = Shell.$("rail");
    if (narrow.matches) rail.open = false;
    narrow.addEventListener("change", () => { rail.open = !narrow.matches; });
    const links = new Map([...document.querySelectorAll("aside nav a")].map((a) => [Shell.$(a.hash.slice(1)), a]));
    links.forEach((link, section) => link.addEventListener("click", (event) => {
      event.preventDefault();
      if (narrow.matches) rail.open = false;
      if (section.tagName === "DETAILS") section.open = true;
      section.scrollIntoView();
      const heading = section.querySelector("h2, h3, summary");
      if (heading.tabIndex < 0) heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }));
    const spy = new IntersectionObserver((entries) => entries.forEach((e) => {
      if (!e.isIntersecting) return;
      links.forEach((l) => l.removeAttribute("aria-current")); links.get(e.target).setAttribute("aria-current", "true");
    }), { rootMargin: "-15% 0px -75% 0px" });
    links.forEach((_, section) => spy.observe(section));
  },

  downloads(tables) {
    const field = (value) => { const text = value === null || value === undefined ? "" : String(value); return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
    const csv = ({ columns, data: values }) => [columns, ...(values[0] || []).map((_, i) => values.map((v) => v[i]))].map((r) => r.map(field).join(",")).join("\r\n");
    Object.entries(tables).forEach(([name, table]) => {
      const button = Shell.element("button", { type: "button", textContent: `${name}.csv (${(table.data[0] || []).length.toLocaleString("en")} rows)` });
      button.addEventListener("click", () => {
        const link = Shell.element("a", { href: URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" })), download: `${name}.csv` });
        link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      });
      Shell.$("downloads").append(button);
    });
  },
};
