"""How the page looks: light or dark, as the reader's system is; a laptop's width and less."""

STYLE = """
:root { color-scheme: light dark;
  --ground: #f6f7f9; --card: #fff; --ink: #1c2430; --dim: #667080; --line: #dfe3e9;
  --c1: #1f6feb; --c2: #d9600a; --c3: #1a8f5a; --c4: #8250c8;
  --good: #1a8f5a; --waiting: #b07400; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #0f1319; --card: #181e27; --ink: #e4e9f0; --dim: #93a0b1; --line: #2b3441;
  --c1: #62a4ff; --c2: #ff9a4d; --c3: #4ecb92; --c4: #b99aff;
  --good: #4ecb92; --waiting: #e5b454; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1240px; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 28px; letter-spacing: -.01em; }
h2 { margin: 40px 0 8px; font-size: 20px; }
h3 { margin: 22px 0 8px; font-size: 15px; }
header p, .note, small { color: var(--dim); }
header p { margin: 4px 0 20px; }
.note { margin: 8px 0 12px; font-size: 14px; }
.status { margin-left: 8px; padding: 3px 11px; border: 1px solid currentColor; border-radius: 99px;
  font-size: 13px; font-weight: 500; letter-spacing: 0; vertical-align: middle; }
.good { color: var(--good); } .waiting { color: var(--waiting); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 10px; }
.tiles div, .charts figure, .panels figure, .strips, .tables table, .wide {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tiles div { padding: 11px 12px; }
.tiles h2 { margin: 0; font-size: 13px; font-weight: 500; color: var(--dim); }
.tiles strong { display: block; font-size: clamp(17px, 1.75vw, 21px); line-height: 1.35;
  letter-spacing: -.01em; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles small { font-size: 12.5px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
  gap: 14px; }
figure { margin: 0; }
.charts figure { display: flex; flex-direction: column; padding: 12px 14px 10px; }
.charts svg { margin-top: auto; }
.charts figcaption { display: flex; flex-wrap: wrap; gap: 0 16px; align-items: baseline;
  min-height: 24px; font-size: 13px; }
.charts figcaption b { font-size: 15px; }
.charts small { display: block; font-size: 12.5px; }
.key { color: var(--dim); white-space: nowrap; }
.key em { color: var(--ink); font-style: normal; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: 16px; margin-right: 6px; vertical-align: 4px;
  border-top: 2.5px solid var(--c); }
.key.dashed i { border-top-style: dashed; border-top-width: 2px; }
.c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11.5px; fill: var(--dim); font-variant-numeric: tabular-nums; }
svg text.stage { font-size: 11.5px; font-weight: 600; }
svg line { stroke: var(--line); stroke-width: 1; }
svg line.axis { stroke: var(--dim); }
svg line.border { stroke: var(--dim); stroke-dasharray: 3 4; opacity: .8; }
svg polyline { fill: none; stroke: var(--c); stroke-width: 1.9; stroke-linejoin: round; }
svg .dashed polyline { stroke-dasharray: 5 4; stroke-width: 1.5; }
svg circle { fill: var(--c); stroke: var(--card); stroke-width: .8; }
svg .dashed circle { fill-opacity: 0; stroke-opacity: 0; }
svg circle:hover { stroke: var(--ink); stroke-width: 2; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr));
  gap: 14px; }
.panels figure { padding: 10px 12px 12px; }
.panels figcaption { margin-bottom: 6px; color: var(--dim); font-size: 13px; }
.tall { max-height: 900px; overflow: auto; }
img { display: block; width: 100%; height: auto; border-radius: 4px; }
.strips { padding: 12px 14px; }
.columns { display: flex; gap: 3px; margin-bottom: 4px; font-size: 12.5px; color: var(--dim); }
.columns span { flex: 1; min-width: 0; }
.strips figure + figure { margin-top: 12px; }
.strips figcaption { margin-top: 2px; font-size: 13px; font-variant-numeric: tabular-nums; }
.much { color: #e07818; } .missed { color: #3880f0; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; padding: 4px 14px 8px; }
.wide table { width: 100%; }
.wide th, .wide td { padding: 6px 10px; text-align: right; white-space: nowrap; }
.wide th { color: var(--dim); font-weight: 500; border-bottom: 1px solid var(--line); }
.wide th:first-child, .wide td:first-child { text-align: left; padding-left: 0; }
.wide tbody tr + tr td { border-top: 1px solid var(--line); }
summary { margin: 30px 0 10px; font-size: 15px; font-weight: 600; cursor: pointer; }
.tables { columns: 340px; column-gap: 14px; }
.tables table { display: inline-table; width: 100%; margin: 0 0 14px; padding: 6px 10px;
  border-collapse: separate; border-spacing: 0; break-inside: avoid; }
.tables caption { padding: 0 0 4px; text-align: left; font-weight: 600; }
.tables th { padding: 2px 10px 2px 4px; text-align: left; vertical-align: top; font-weight: 400;
  color: var(--dim); white-space: nowrap; }
.tables td { padding: 2px 4px; text-align: right; overflow-wrap: anywhere; }
code { padding: 1px 5px; border-radius: 5px; background: var(--line); font-size: 13px; }
@media print { body { max-width: none; } figure, .tiles div { break-inside: avoid; } }
"""
