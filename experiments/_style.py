"""The style sheet of the report: one column, readable on a phone and in the dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1a1f26; --soft: #59636e;
  --line: #d9dee4; --link: #0b5cad; --code: #eceff3;
  --good: #0f6b3c; --good-fill: #dcf3e5; --part: #7a4b00; --part-fill: #fdefcf;
  --bad: #a1201b; --bad-fill: #fde3e1; --plain: #1f4f8a; --plain-fill: #e0ecfa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161b; --card: #1b2027; --ink: #e4e8ed; --soft: #9aa5b1;
    --line: #323a44; --link: #7db7f5; --code: #232a33;
    --good: #7fdca6; --good-fill: #153524; --part: #f2c46d; --part-fill: #3a2c0d;
    --bad: #ff9d97; --bad-fill: #43191a; --plain: #9cc6f7; --plain-fill: #17304e;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 58rem;
  background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 0 0 .9rem; }
nav h2 { font-size: 1rem; margin-bottom: .3rem; }
section { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
a { color: var(--link); }
.lead, nav span, dt { color: var(--soft); }
.lead { margin: 0 0 1.25rem; }
nav ol { margin: 0; padding-left: 1.4rem; }
nav li { margin: .25rem 0; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td {
  padding: .5rem .8rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.scroll th { min-width: 5.5rem; }
.scroll td { white-space: nowrap; padding-top: .35rem; padding-bottom: .35rem; }
.scroll tr > :first-child { position: sticky; left: 0; background: var(--card); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.label {
  display: inline-block; padding: .05rem .5rem; border-radius: 1rem;
  font-size: .88em; color: var(--plain); background: var(--plain-fill);
}
.holds { color: var(--good); background: var(--good-fill); }
.holds-with-conditions { color: var(--part); background: var(--part-fill); }
.false { color: var(--bad); background: var(--bad-fill); }
dl { display: grid; grid-template-columns: 7.5rem 1fr; gap: .4rem 1rem; margin: 0; }
dd { margin: 0; min-width: 0; }
figure {
  margin: 1.4rem 0; padding: .6rem; text-align: center;
  background: #ffffff; border: 1px solid var(--line); border-radius: .5rem;
}
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
pre {
  margin: 1rem 0; padding: .7rem .9rem; border-radius: .5rem; background: var(--code);
  font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.answers { display: block; }
.answers dt { color: var(--ink); font-weight: 600; margin-top: 1.1rem; }
.answers p { margin: .25rem 0 0; color: var(--soft); font-size: .88rem; }
.verdicts th[colspan] { color: var(--soft); background: var(--code); }
details { font-size: .93rem; }
summary { cursor: pointer; color: var(--soft); margin-bottom: .6rem; }
@media (max-width: 40rem) {
  dl { display: block; }
  dt { margin-top: .7rem; font-size: .88rem; }
  .scroll td:first-child { white-space: normal; }
  .verdicts thead { display: none; }
  .verdicts tr { display: block; border-bottom: 1px solid var(--line); }
  .verdicts tr:last-child { border-bottom: 0; }
  .verdicts th, .verdicts td { display: block; border: 0; padding: .3rem .9rem; }
  .verdicts th { padding-top: .8rem; }
  .verdicts td:last-child { padding-bottom: .9rem; }
}
@media print { .scroll { overflow: visible; } section { break-inside: avoid-page; } }
"""
