"""The picture of docs/explore.md: the page of the demo's test galaxies, and the view of one of them.

make -C benchmarks explore-picture
"""

import io
import sys
import tempfile
from pathlib import Path

from pages import REPO
from PIL import Image

sys.path.insert(0, str(REPO / "tests" / "support"))
from browser import chromium  # noqa: E402

SIZE = (1180, 800)
FIRST = "has-spiral-arms_yes_fraction"
# Galaxies that are sorted by a fraction of spiral arms, where most volunteers would be asked about them.
PREPARE = f"""(async () => {{
  await zoo.page.filtering.addFilter("has-spiral-arms_asked", zoo.page.about.relevant);
  zoo.page.state.sort = "{FIRST}";
}})()"""
# The folder of whoever draws is no part of the picture.
SHORTEN = """document.querySelectorAll("dd.file").forEach((place) => {
  place.textContent = place.textContent.replace(/^.*\\/results\\//, "results/");
})"""


def draw(page, output):
    """Open a page in Chromium, and write a picture of its grid and of its first galaxy side by side.

    Args:
        page: `index.html` of a target with the tree of GZ DECaLS.
        output: PNG to write.
    """
    shots = []
    with tempfile.TemporaryDirectory() as folder, chromium(folder) as browser:
        browser.size(*SIZE)
        browser.open(Path(page).resolve().as_uri())
        browser.wait("zoo.page.state.filters.length >= 3")
        browser.do(PREPARE)
        for number, script in enumerate(("zoo.page.move(0)", "zoo.page.open(0)")):
            browser.do(script)
            # The images come after the page.
            browser.do("new Promise((done) => setTimeout(done, 2000))")
            browser.do(SHORTEN)
            path = Path(folder) / f"{number}.png"
            browser.screenshot(path)
            shots.append(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
    width, height = SIZE
    canvas = Image.new("RGB", (2 * width + 20, height), "white")
    for number, shot in enumerate(shots):
        canvas.paste(shot, (number * (width + 20), 0))
    canvas = canvas.resize((canvas.width * 2 // 3, canvas.height * 2 // 3), Image.Resampling.LANCZOS)
    canvas.quantize(256, Image.Quantize.MAXCOVERAGE).save(output, optimize=True)


if __name__ == "__main__":
    draw(*sys.argv[1:])
