"""Pages in a real browser (Debian's chromium, driven by playwright), and how well text stands out on them."""

import dataclasses
import pathlib
import re
import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, SCREEN = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
IS_NO_WIDER = "document.documentElement.scrollWidth <= window.innerWidth"
OUTSIDE = """[...document.querySelectorAll('body *')].filter(
    element => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest('.scroll, .hide')
).map(element => element.outerHTML.slice(0, 80))"""


@dataclasses.dataclass
class Visit:
    """A page as it stands in the browser, and what it said and asked for while it was loading."""

    page: object
    messages: list[str]
    requests: list[str]


def visit(browser, path: pathlib.Path, size: dict[str, int], scheme: str = "light", **options) -> Visit:
    page = browser.new_page(viewport=size, color_scheme=scheme, **options)
    seen = Visit(page, [], [])
    page.on("console", lambda message: seen.messages.append(message.text))
    page.on("pageerror", lambda error: seen.messages.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(path.as_uri())
    return seen


def contrasts(page, selectors: list[str]) -> dict[str, float]:
    """Return the contrast (WCAG 2.1) of the first element of each selector with what is behind it."""
    pairs = page.evaluate(
        """selectors => selectors.map(name => {
            const element = document.querySelector(name);
            let behind = element;
            const clear = 'rgba(0, 0, 0, 0)';
            while (getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
            return [name, getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        })""",
        selectors,
    )
    return {name: _contrast(text, behind) for name, text, behind in pairs}


def _contrast(first: str, second: str) -> float:
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
