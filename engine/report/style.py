"""The style sheet of the report: readable on a phone, on a dark screen and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1b1f24; --soft: #57606a; --rule: #d8dee4; --card: #f6f8fa; --accent: #1f6aa5;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e6e8ea; --soft: #9aa3ad; --rule: #30363d; --card: #1d2126; --accent: #6cb2ea; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 64rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 0.4rem; letter-spacing: -0.01em; }
h3 { font-size: 1rem; margin: 1.6rem 0 0.4rem; }
p { margin: 0.4rem 0 0.8rem; max-width: 46rem; }
.facts, .note, .missing, small { color: var(--soft); }
.facts { font-size: 0.95rem; }
.note, .missing { font-size: 0.92rem; }
.missing { border-left: 3px solid #c9700a; padding-left: 0.7rem; }
.modelled { border: 2px solid #c9700a; border-radius: 6px; padding: 0.6rem 0.8rem; font-weight: 600; }
.summary { font-size: 1.15rem; line-height: 1.55; margin-top: 1.2rem; }
figure { margin: 0.8rem 0 0; }
.chart { width: 100%; height: 420px; }
#prediction { max-width: 34rem; height: 34rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 2rem; }
.pair .chart { height: 320px; }
.pair > * { min-width: 0; }
.scroll { overflow-x: auto; margin: 0.8rem 0; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 1rem 0.4rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th.text, td.text { text-align: left; }
tbody th { font-weight: 400; text-align: left; color: var(--soft); white-space: nowrap; }
.figures td { white-space: nowrap; }
.figures td.genes { white-space: normal; min-width: 19rem; font-size: 0.82rem; line-height: 1.5; }
.genes summary { color: var(--ink); margin: 0.1rem 0; overflow-wrap: anywhere; }
.plain td { overflow-wrap: anywhere; min-width: 8rem; text-align: left; }
.plain tbody th { white-space: normal; }
.badge {
  display: inline-block; border: 1px solid currentColor; border-radius: 0.7em; color: var(--accent);
  padding: 0 0.5em; font-size: 0.75rem; line-height: 1.4;
}
pre {
  background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: 0.8rem 1rem; overflow-x: auto;
  font: 0.88rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 0.6rem 0;
}
summary { cursor: pointer; color: var(--accent); margin: 0.6rem 0; }
.js-plotly-plot .plotly text { fill: var(--ink) !important; }
.js-plotly-plot .hoverlayer .hovertext path { fill: var(--card) !important; stroke: var(--rule) !important; }
.js-plotly-plot .annotation-arrow-g path { stroke: var(--soft) !important; }
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .summary { font-size: 1.05rem; }
  .chart { height: 380px; }
  #prediction { height: 26rem; }
  th, td { padding-right: 0.8rem; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #000; --soft: #444; --rule: #bbb; --card: #fff; --accent: #000; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2, .note { break-after: avoid; }
  .pair { display: block; }
  figure, tr, pre, p { break-inside: avoid; }
  .scroll { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
"""
