"""How a sweep's page looks, and the little that it does: order the table, copy a command."""

STYLE = """
:root { --paper: #ffffff; --ink: #1f2328; --quiet: #59636e; --line: #d1d9e0; --shade: #f3f5f7; --front: #0a6b3d;
  --missed: #8a5300; --failed: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --quiet: #9aa4ae; --line: #363d45;
  --shade: #20252b; --front: #5cc98f; --missed: #e0a64b; --failed: #ff8a80; } }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); font: 16px/1.45 system-ui, sans-serif;
  -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
p { margin: .5rem 0; max-width: 48rem; }
code { font: .85rem/1.4 ui-monospace, monospace; }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: 4px; }
.command { display: flex; gap: .5rem; align-items: flex-start; }
.command code { user-select: all; overflow-wrap: anywhere; background: var(--shade); border-radius: 4px;
  padding: .3rem .5rem; min-width: 0; }
.copy { font-size: .85rem; padding: .25rem .6rem; flex: none; }
.note { background: var(--shade); border-left: 4px solid var(--line); padding: .5rem .75rem; }
figure { margin: 1rem 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: .5rem 1.5rem; }
.panel svg, .legend svg { width: 100%; height: auto; display: block; }
.legend { max-width: 30rem; margin: .5rem auto 0; }
figcaption { color: var(--quiet); font-size: .85rem; margin-top: .25rem; }
.box { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); font-size: .85rem; font-weight: 600; vertical-align: bottom; }
thead button { border: 0; padding: 0; background: none; font-weight: inherit; cursor: pointer; text-align: right;
  white-space: nowrap; }
thead [aria-sort] button { text-decoration: underline; }
tbody { border-bottom: 1px solid var(--line); }
th.name { text-align: left; font-weight: 600; min-width: 13rem; }
.number { color: var(--quiet); }
.where { font-size: .85rem; color: var(--quiet); overflow-wrap: anywhere; }
.badge { font-size: .75rem; font-weight: 600; border: 1px solid; border-radius: 1rem; padding: .05rem .5rem;
  white-space: nowrap; color: var(--quiet); }
.front .badge { color: var(--paper); background: var(--front); border-color: var(--front); }
.missed .badge, .missed .remark { color: var(--missed); }
.failed .badge, .failed .remark { color: var(--failed); }
.more td { padding-top: 0; padding-bottom: .6rem; text-align: left; }
.more p { margin: .25rem 0; overflow-wrap: anywhere; }
footer { color: var(--quiet); font-size: .85rem; margin-top: 1.5rem; overflow-wrap: anywhere; }
.sort { display: none; }
@media (max-width: 60rem) {
  .scripted .sort { display: block; }
  .sort select { padding: .3rem; }
  .box { overflow: visible; }
  thead { display: none; }
  table { display: block; }
  tbody { display: block; border: 1px solid var(--line); border-radius: 6px; margin-bottom: .75rem;
    padding: .6rem .75rem; }
  tbody.front { border-left: 4px solid var(--front); }
  tbody tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.4rem, 1fr)); gap: .4rem .5rem; }
  tbody td, tbody th { display: block; padding: 0; text-align: left; }
  th.name { grid-column: 1 / -1; grid-row: 1; padding-left: 1.8rem; min-width: 0; overflow-wrap: anywhere; }
  .number { grid-column: 1; grid-row: 1; width: 1.6rem; font-weight: 600; }
  td[data-label]::before { content: attr(data-label); display: block; font-size: .72rem; color: var(--quiet); }
  tbody tr.more { display: block; margin-top: .6rem; }
  .more td { padding: 0; }
}
@media print { .copy, .sort { display: none; } }
"""

SCRIPT = """
document.documentElement.classList.add('scripted');
const table = document.querySelector('table'), choice = document.querySelector('select');
const headings = [...table.querySelectorAll('thead th')].filter(heading => heading.querySelector('button'));
function order(index, descending) {
  const value = body => {
    const cell = body.querySelectorAll('td.number, td[data-label]')[index];
    return 'value' in cell.dataset ? Number(cell.dataset.value) : NaN;
  };
  const place = body => Number(body.querySelector('.number').dataset.value);
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b) || place(one) - place(other);
    return (descending ? b - a : a - b) || place(one) - place(other);
  };
  table.append(...[...table.tBodies].sort(compare));
  headings.forEach(heading => heading.removeAttribute('aria-sort'));
  headings[index].setAttribute('aria-sort', descending ? 'descending' : 'ascending');
  choice.value = index;
}
headings.forEach((heading, index) => heading.querySelector('button').addEventListener('click',
  () => order(index, heading.getAttribute('aria-sort') === 'ascending')));
choice.addEventListener('change', () => order(Number(choice.value), false));
document.querySelectorAll('.copy').forEach(button => {
  button.hidden = false;
  button.addEventListener('click', async () => {
    const code = button.previousElementSibling;
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand('copy'); }
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  });
});
"""
