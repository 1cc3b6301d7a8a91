"""Builds a report as one HTML page that holds its pictures, and needs no scripts or network."""

import base64
import dataclasses
import re
from collections.abc import Mapping, Sequence
from html import escape as html_escape

from trainer.reports.plots import GREY, Line, Picture, svg
from trainer.reports.tables import Table
from trainer.system.output import clean

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #5c5c5c; --rule: #d0d0d0;
  --paper: #fff; --head: #f3f3f3; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1rem clamp(.75rem, 3vw, 2rem) 3rem;
  font: 16px/1.5 system-ui, "Liberation Sans", "DejaVu Sans", sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
.note, figcaption { color: var(--faint); font-size: .875rem; }
.figures { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
figure { margin: 0; break-inside: avoid; max-width: 500px; }
figure img { display: block; width: 100%; height: auto; background: #fff; }
figcaption { margin-top: .2rem; }
.thumbnails { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
.thumbnails img { width: auto; max-width: 100%; }
.thumbnails figcaption { line-height: 1.35; }
.thumbnails figcaption b { color: var(--ink); font-weight: 600; }
.thumbnails span { display: block; }
.legend { list-style: none; margin: 0; padding: .4rem 0; display: flex; flex-wrap: wrap;
  gap: .15rem 1.2rem; background: var(--paper); font-size: .875rem; }
.legend li { display: flex; align-items: center; gap: .4rem; overflow-wrap: anywhere; }
.legend svg { flex: none; background: #fff; }
.table { overflow-x: auto; margin: .5rem 0;  /* A shadow if more is to the right. */
  background: linear-gradient(to left, var(--paper) 1.5rem, transparent) 100% 0 / 3rem 100%
    no-repeat local,
    linear-gradient(to left, var(--rule), transparent) 100% 0 / 1.2rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: .3rem .6rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
thead th { background: var(--head); vertical-align: bottom; white-space: normal;
  min-width: 4.75rem; }
.text { text-align: left; }
td.text { white-space: normal; min-width: 6rem; max-width: 24rem; }
td.long { min-width: 16rem; }
tbody th { font-weight: 600; text-align: left; position: sticky; left: 0;
  background: var(--paper); min-width: 8.5rem; max-width: 14rem; white-space: normal;
  overflow-wrap: break-word; }
@media (min-width: 900px) { .legend { position: sticky; top: 0; }
  tbody th { min-width: 12rem; max-width: 28rem; } }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --faint: #a8a8a8; --rule: #444;
  --paper: #161616; --head: #262626; } }
@media print {
  @page { size: A4; margin: 14mm; }
  :root { color-scheme: light; --ink: #000; --faint: #333; --rule: #bbb; --paper: #fff;
    --head: #eee; }
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; font-size: 1rem; }
  h2, .legend { break-inside: avoid; break-after: avoid; }
  .legend { position: static; }
  .figures { grid-template-columns: 1fr 1fr; gap: 4mm; }
  .thumbnails { grid-template-columns: repeat(5, 1fr); gap: 3mm; }
  .table { overflow: visible; background: none; }
  table { font-size: 7.5pt; width: 100%; }
  th, td { padding: .15rem .3rem; }
  td.text { min-width: 0; }
  td.long { min-width: 0; overflow-wrap: anywhere; }
  tbody th { position: static; min-width: 4.5rem; max-width: 24rem; }
  tr { break-inside: avoid; }
}
"""
_LONG = 30  # A cell with more characters than this gets a wider column, so it has fewer lines.


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: its title as plain text, and its body as HTML."""

    title: str
    body: str


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A small picture with lines of text below it.

    Attributes:
      png: a PNG file in base64.
      alt: description for readers who cannot see the picture.
      lines: the text; the first line is bold.
    """

    png: str
    alt: str
    lines: Sequence[str]


def escape(text: str) -> str:
    r"""Returns the text as HTML; an unprintable character becomes an escape such as \x1b."""
    return html_escape(clean(text))


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Returns the whole page; `lead` holds the paragraphs below the title."""
    parts = "".join(
        f"<section>\n<h2>{escape(each.title)}</h2>\n{each.body}</section>\n" for each in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{paragraphs(lead)}{parts}</body>\n</html>\n"
    )


def paragraphs(texts: Sequence[str], kind: str = "") -> str:
    """Returns an HTML paragraph for each text; `kind` is the CSS class of all paragraphs."""
    mark = f' class="{kind}"' if kind else ""
    return "".join(f"<p{mark}>{escape(text)}</p>\n" for text in texts)


def figures(pictures: Sequence[Picture]) -> str:
    """Returns a grid of the pictures, with as many columns as fit; "" if there are no pictures."""
    content = "".join(map(_figure, pictures))
    return f'<div class="figures">\n{content}</div>\n' if pictures else ""


def _figure(picture: Picture) -> str:
    content = base64.b64encode(svg(picture)).decode()
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>\n" if picture.caption else ""
    return (
        f'<figure>\n<img alt="{escape(picture.alt)}" src="data:image/svg+xml;base64,{content}">\n'
        f"{caption}</figure>\n"
    )


def heading(text: str) -> str:
    """Returns a heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def thumbnails(pictures: Sequence[Thumbnail]) -> str:
    """Returns a grid of small pictures, with as many columns as fit on the page."""

    def caption(lines: Sequence[str]) -> str:
        first, *rest = (f"<span>{escape(line)}</span>" for line in lines)
        return f"<figcaption><b>{first}</b>{''.join(rest)}</figcaption>"

    content = "".join(
        f'<figure>\n<img alt="{escape(each.alt)}" src="data:image/png;base64,{escape(each.png)}">\n'
        f"{caption(each.lines)}\n</figure>\n"
        for each in pictures
    )
    return f'<div class="thumbnails">\n{content}</div>\n'


def legend(drawn: Mapping[str, Line]) -> str:
    """Returns the legend: a sample of each coloured line, and one sample for all grey lines."""
    named = {label: line for label, line in drawn.items() if line != GREY}
    grey = len(drawn) - len(named)
    if grey:
        named["1 other condition" if grey == 1 else f"{grey} other conditions"] = GREY
    items = "".join(
        f'<li><svg width="34" height="12" aria-hidden="true"><line x1="1" y1="6" x2="33" y2="6" '
        f'stroke="{line.colour}" stroke-width="2.4" '
        f'stroke-dasharray="{" ".join(f"{2 * d:g}" for d in line.dashes)}"/></svg>'
        f"{escape(label)}</li>\n"
        for label, line in named.items()
    )
    return f'<ul class="legend">\n{items}</ul>\n'


def table(content: Table) -> str:
    """Returns the table, which scrolls horizontally if it is wider than the page."""

    def cell(i: int, text: str, kind: str) -> str:
        long = " long" if len(text) > _LONG else ""
        mark = f' class="text{long}"' if i in content.texts else ""
        escaped = escape(text)
        if mark or kind != "td":  # Allows line breaks after _, / and commas.
            escaped = re.sub("([_/,])(?=[^ ])", r"\1<wbr>", escaped)
        return f"<{kind}{mark}>{escaped}</{kind.split()[0]}>"

    head = "".join(cell(i, text, 'th scope="col"') for i, text in enumerate(content.head))
    rows = "".join(
        "<tr>"
        + "".join(cell(i, text, "td" if i else 'th scope="row"') for i, text in enumerate(row))
        + "</tr>\n"
        for row in content.rows
    )
    return (
        f'<div class="table" role="region" aria-label="{escape(content.name)}" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
