"""Markdown, and what the chat page makes of it."""

from __future__ import annotations

MARKDOWN = {
    "a *b* **c** ***d*** ~~e~~ `f` \\*g\\*": (
        "<p>a <em>b</em> <strong>c</strong> <em><strong>d</strong></em> <del>e</del> "
        "<code>f</code> *g*</p>"
    ),
    "snake_case_name, 2 * 3, **not closed": "<p>snake_case_name, 2 * 3, **not closed</p>",
    "one\ntwo": "<p>one<br>two</p>",
    "# A\n### B\nC\n---": '<h3 class="h1">A</h3><h5 class="h3">B</h5><h4 class="h2">C</h4>',
    "- a\n  - b\n\n    c\n- d": ("<ul><li>a<ul><li><p>b</p><p>c</p></li></ul></li><li>d</li></ul>"),
    "3. a\n4. b\n   - c": '<ol start="3"><li>a</li><li>b<ul><li>c</li></ul></li></ol>',
    "> a\n> > b\nc": "<blockquote><p>a</p><blockquote><p>b<br>c</p></blockquote></blockquote>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "    indented\n\n    code": "indented\n\ncode",
    "```py\nx = 1 # one\n```\nafter": (
        'x = <span class="number">1</span> <span class="comment"># one</span>'
    ),
    "|a|b|\n|-|-:|\n|1|`x \\| y`|": (
        '<th class="" scope="col">a</th><th class="right" scope="col">b</th></tr></thead>'
        '<tbody><tr><td class="">1</td><td class="right"><code>x | y</code></td>'
    ),
    "see https://a.example/x_(y). ok": (
        '<a href="https://a.example/x_(y)" title="https://a.example/x_(y)" target="_blank" '
        'rel="noopener noreferrer">https://a.example/x_(y)</a>. ok'
    ),
    "&lt;b&gt; &amp;copy; <i>": "<p>&lt;b&gt; &amp;copy; &lt;i&gt;</p>",
}
# While more is to come, what is open is taken as closed, and a half mark is not shown.
GROWING = {
    "so **bold": "<p>so <strong>bold</strong></p>",
    "so **bold*": "<p>so <strong>bold</strong></p>",
    "a `code": "<p>a <code>code</code></p>",
    "[a link](https://exa": "<p><span>a link</span></p>",
    "2*3": "<p>2*3</p>",
}

# What would do harm, were it taken for markup.
HOSTILE = """# <img src=x onerror="hacked()">

<script>hacked()</script> <iframe src="javascript:hacked()"></iframe>
[a](javascript:hacked()) [b](JaVaScRiPt:hacked()) [c](data:text/html,<script>hacked()</script>)
[d](/v1/models) ![e](http://elsewhere.invalid/pixel.png) <a href="javascript:hacked()">f</a>
[g](https://good.invalid/"onmouseover="hacked())

```<script>hacked()</script>
</code></pre><script>hacked()</script>
```

| <svg onload=hacked()> | b |
|---|---|
| <style>*{display:none}</style> | {{constructor.constructor('hacked()')()}} |
"""
