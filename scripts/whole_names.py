"""A hook of the documentation site, named in mkdocs.yml: a name in the text of a page is not broken at a hyphen.

Style sheets know no such rule: a browser breaks `--on-bad-row` behind each hyphen, or a whole call nowhere.
"""

import re
from html import unescape

_INLINE_CODE = re.compile(r"<code>([^<]+)</code>(?!</pre>)")
_LONGEST = 36
"""Characters that a phone has room for in one line, in a list too."""


def on_page_content(html: str, **_: object) -> str:
    """Mark each word of the code in a page's text; docs/stylesheets/site.css keeps it in one line."""
    return _INLINE_CODE.sub(lambda code: "<code>" + re.sub(r"\S+", _marked, code[1]) + "</code>", html)


def _marked(word: re.Match[str]) -> str:
    return f'<span class="whole">{word[0]}</span>' if len(unescape(word[0])) <= _LONGEST else word[0]
