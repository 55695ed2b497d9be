// Runs in a report's page: is everything drawn that the page has data for, and can it be read? What is wrong becomes the page's text.
const wrong = [];
const say = (what) => wrong.push(what);

const placed = (scale, value) =>
  Number.isFinite(value) && (scale === "linear" || (scale === "log" && value > 0) || (scale === "nines" && value >= 0 && value < 1));
const expectedMarks = ({ lines, bars }) =>
  lines
    ? lines.series.filter((s) => s.role === "measured").flatMap((s) => s.points).filter((p) => placed(lines.x.scale, p.x) && placed(lines.y.scale, p.y)).length
    : bars.groups.flatMap((g) => g.bars).filter((b) => b !== null).length;
const expectedRows = ({ lines, bars }) =>
  lines ? new Set(lines.series.flatMap((s) => s.points.map((p) => p.x))).size : bars.groups.length;

const overlap = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
const within = (inner, outer) =>
  inner.left >= outer.left - 1 && inner.right <= outer.right + 1 && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;

const report = JSON.parse(document.getElementById("data").textContent);
const plots = report.sections.flatMap((s) => s.items).filter((i) => i.plot).map((i) => i.plot);
const figures = [...document.querySelectorAll("figure")];
if (plots.length === 0) say("no plots");
if (plots.length !== figures.length) say(`${plots.length} plots in the data, ${figures.length} figures`);
plots.forEach((plot, i) => {
  const figure = figures[i];
  const drawings = [...figure.querySelectorAll(".wide > svg, .narrow > svg")].filter((svg) => svg.getBoundingClientRect().width > 0);
  if (drawings.length !== 1) return say(`${plot.title}: ${drawings.length} drawings are visible`);
  const box = drawings[0].getBoundingClientRect();
  const marks = [...drawings[0].querySelectorAll(".mark")];
  if (marks.length !== expectedMarks(plot.body)) say(`${plot.title}: ${marks.length} marks for ${expectedMarks(plot.body)} values`);
  for (const mark of marks) {
    const at = mark.getBoundingClientRect();
    if (!(at.width > 0 && at.height > 0)) say(`${plot.title}: a mark without size`);
    if (!within(at, box)) say(`${plot.title}: a mark outside the drawing`);
  }
  const texts = [...drawings[0].querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  texts.forEach(([text, at], k) => {
    if (!within(at, box)) say(`${plot.title}: "${text}" reaches out of the drawing`);
    for (const [other, there] of texts.slice(k + 1)) if (overlap(at, there)) say(`${plot.title}: "${text}" and "${other}" overlap`);
  });
  const rows = figure.querySelectorAll("tbody tr").length;
  if (rows !== expectedRows(plot.body)) say(`${plot.title}: ${rows} rows for ${expectedRows(plot.body)}`);
});
if (document.documentElement.scrollWidth > innerWidth) say(`the page is ${document.documentElement.scrollWidth} wide in a window of ${innerWidth}`);
const colors = new Set([...Array(8).keys()].map((i) => getComputedStyle(document.documentElement).getPropertyValue(`--c${i}`)));
if (colors.size !== 8) say("colours are not all different");
document.body.textContent = wrong.length === 0 ? `FINE ${plots.length} plots` : `WRONG ${wrong.join("; ")}`;
