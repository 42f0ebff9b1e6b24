"""Checks of a folder of HTML pages: dead links, and what a browser would load from elsewhere."""

import re
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src", "audio": "src", "object": "data", "embed": "src"}  # fmt: skip
NOT_LOADED = {"canonical", "search", "index", "next", "prev", "author", "copyright"}
"""The relations of ``<link>`` that name a page and load nothing."""


class Page(HTMLParser):
    """The links, the anchors and the loaded files of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loaded, self.styles = [], set(), [], []
        self._style = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self._style = tag == "style"
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if values.get("style"):
            self.styles.append(values["style"])
        target = values.get(LOADED.get(tag))
        if tag == "link" and values.get("rel") in NOT_LOADED:
            if target:
                self.links.append(target)
        elif target:
            self.loaded.append(target)
        self.loaded += [part.split()[0] for part in (values.get("srcset") or "").split(",") if part]

    def handle_data(self, data):
        if self._style:
            self.styles.append(data)


def remote(url):
    """Whether a browser would ask another machine for it; ``data:`` and ``#`` are local."""
    return bool(urlsplit(url).netloc) or urlsplit(url).scheme in ("http", "https", "ftp", "file")


def in_styles(text):
    """Return what a style sheet loads."""
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)", text)
    return found + re.findall(r"@import\s+['\"]([^'\"]+)", text)


def loaded_from_elsewhere(folder):
    """Return (page, address) for each script, style, font or picture that is not in the folder."""
    found = []
    for path in sorted(folder.rglob("*.html")):
        page = Page(path)
        urls = page.loaded + [url for style in page.styles for url in in_styles(style)]
        found += [(path.name, url) for url in urls if remote(url)]
    for path in sorted(folder.rglob("*.css")):
        urls = in_styles(path.read_text(encoding="utf-8"))
        found += [(path.name, url) for url in urls if remote(url)]
    return found


def dead_links(folder):
    """Return (page, link) for each local link, anchor, picture, script or style that is not there."""
    page_of, dead = cache(Page), []
    for path in sorted(folder.rglob("*.html")):
        page = page_of(path)
        for url in page.links + page.loaded:
            parts = urlsplit(url)
            if remote(url) or parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            missing = not target.is_file() or folder.resolve() not in target.resolve().parents
            anchor = unquote(parts.fragment)
            if not missing and anchor and target.suffix == ".html":
                missing = anchor not in page_of(target).anchors
            if missing:
                dead.append((str(path.relative_to(folder)), url))
    return dead


def weight(folder, name):
    """Return the bytes of a page with all that it loads, and the number of requests."""
    path = folder / name
    files = {path, *((path.parent / urlsplit(url).path).resolve() for url in Page(path).loaded if not urlsplit(url).scheme)}  # fmt: skip
    return sum(file.stat().st_size for file in files), len(files)
