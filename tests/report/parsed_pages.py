"""Read pages back: their structure, their text, the data packed into them."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}
OPTIONAL = {"li", "td", "tr", "p"}


class Structure(HTMLParser):
    """Collect attributes and text, and check that what must be closed is closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.rows, self.text = [], [], 0, []
        self.joins = False

    def handle_starttag(self, tag, attrs) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.rows += ("data-i" in dict(attrs)) and tag == "tr"
        self.joins = tag == "wbr"
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag) -> None:
        if tag not in OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if not self.open or self.open[-1] not in {"script", "style"}:
            if self.joins:  # one word, which may only break there
                self.text[-1] += data
            else:
                self.text.append(data)
        self.joins = False


def parsed(html) -> Structure:
    structure = Structure()
    structure.feed(html)
    structure.close()
    return structure


def payload(html) -> Any:
    packed = re.search(r'id="data-packed">([^<]*)<', html).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))
