"""Take the picture of the demo's report that the README shows.

    python docs/make_report_picture.py [--output docs/assets/report.png] [--report DIRECTORY]

Needs the extra [test] and a Chromium (Debian: `apt-get install chromium`).
"""

import argparse
import io
import pathlib
import shutil
import tempfile

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1180, 1800
ABRIDGED = """
    .head { padding-top: 36px; }
"""
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = pathlib.Path(__file__).parent / "assets" / "report.png"
    parser.add_argument("--output", type=pathlib.Path, default=default, help="where the picture goes")
    parser.add_argument("--report", type=pathlib.Path, help="an audit's directory (default: the demo is run)")
    return parser.parse_args()


def run_demo(directory: pathlib.Path) -> pathlib.Path:
    """Audit the demo, as `deel-dualview audit` does."""
    from deel_dualview import audit
    from deel_dualview.cli.demo import make_demo

    demo = make_demo()
    known = demo.swapped_indices
    report = audit(demo.model, demo.train, demo.test, class_names=demo.class_names, known_label_errors=known)
    return report.to_html(directory / "audit").parent


def take_picture(report: pathlib.Path, output: pathlib.Path) -> None:
    """Photograph the page, its first part, in few colours so that the file stays small."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, bypass_csp=True)
        page.goto((report / "index.html").resolve().as_uri())
        page.add_style_tag(content=ABRIDGED)
        pixels = page.screenshot()
        browser.close()
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(pixels)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)


def main() -> None:
    """Run the demo unless a report is given, and take the picture."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        take_picture(arguments.report or run_demo(pathlib.Path(folder)), arguments.output)


if __name__ == "__main__":
    main()
