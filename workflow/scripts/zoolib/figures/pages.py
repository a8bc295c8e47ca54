"""Tables as HTML pages, which the report shows."""

from zoolib.job.logs import whole

STYLE = """
body {font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff}
table {border-collapse: collapse}
th, td {padding: .35em 1em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top}
th {border-bottom: 2px solid #222}
td {font-variant-numeric: tabular-nums; overflow-wrap: break-word; max-width: 44em}
"""


def write_page(path, body, style=""):
    """Write a page in the common style.

    Args:
        path: HTML file to write.
        body: HTML of the content.
        style: more CSS, for this page alone.
    """
    with whole(path) as partial:
        partial.write_text(
            f"<!DOCTYPE html><html><meta charset='utf-8'><style>{STYLE}{style}</style>"
            f"<body>{body}</body></html>\n"
        )
