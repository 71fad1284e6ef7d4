"""Docstrings in this project's style, made into what Sphinx reads.

Docstrings follow Keras: code is in single backticks, formulas are indented, and no
other character is markup. Sphinx reads reStructuredText, where `*`, `|` and `_` are.
"""

import re

_ARGUMENT = re.compile(r"(\s*)(\*{1,2}\w+)(:.*)")
_FENCE = re.compile(r"\s*```")
_LIST = re.compile(r"\s*([-*+]|\d+\.)\s")


def to_rst(lines):
    """Lines of a docstring as lines of reStructuredText.

    Args:
        lines: List of strings without a common indent.
    """
    converted = []
    for block in _blocks(lines):
        # Code keeps its characters; a formula becomes a literal block.
        if block[0].lstrip().startswith(">>>"):
            converted += block
        elif _FENCE.match(block[0]):
            converted += _literal(block[1:-1], block[0])
        elif _is_formula(block, converted):
            indent = _indent(block[0])
            converted += _literal(block, " " * (indent - 4))
        else:
            converted += _escape_text(block)
    return converted


def _blocks(lines):
    """Runs of lines that belong together: paragraphs, blank lines, fenced code."""
    blocks, fenced = [], False
    for line in lines:
        fence = _FENCE.match(line)
        new = not blocks or (not fenced and (fence or _starts_block(blocks[-1], line)))
        if new:
            blocks.append([])
        blocks[-1].append(line)
        if fence:
            fenced = not fenced
            if not fenced:
                blocks.append([""])
    return [block for block in blocks if block]


def _starts_block(block, line):
    closed = not block[-1].strip() or not line.strip()
    return closed or line.lstrip().startswith(">>>") != _is_code(block)


def _is_code(block):
    return block[0].lstrip().startswith(">>>")


def _is_formula(block, before):
    """Whether a paragraph is further in than the text before it, after a blank line."""
    if not before or before[-1].strip() or not block[0].strip():
        return False
    text = [line for line in before if line.strip()]
    if not text or _LIST.match(block[0]):
        return False
    # A section's text is further in than its name; it is text all the same.
    section = re.fullmatch(r"\s*[A-Z][\w ]*:", text[-1])
    return not section and _indent(block[0]) >= _indent(text[-1]) + 4


def _literal(block, like):
    indent = " " * _indent(like) if like.strip() else like
    shift = 4 + len(indent) - min(_indent(line) for line in block if line.strip())
    moved = [" " * (_indent(line) + shift) + line.lstrip() for line in block]
    return [f"{indent}::", "", *moved, ""]


def _indent(line):
    return len(line) - len(line.lstrip())


def _escape_text(block):
    """Escape a paragraph's text, and double the backticks around its code."""
    pieces = "\n".join(block).split("`")
    if len(pieces) % 2 == 0:  # An odd backtick: not code.
        return [_escape(line) for line in block]
    for i in range(0, len(pieces), 2):
        lines = pieces[i].split("\n")
        pieces[i] = "\n".join(map(_escape, lines))
    for i in range(1, len(pieces), 2):
        pieces[i] = f"``{pieces[i]}``"
    return _join(pieces).split("\n")


def _join(pieces):
    """Text and code in turn; code may not touch a letter."""
    text = pieces[0]
    for code, after in zip(pieces[1::2], pieces[2::2], strict=True):
        if text and (text[-1].isalnum() or text[-1] == "_"):
            text += "\\ "
        text += code
        if after and (after[0].isalnum() or after[0] == "_"):
            text += "\\ "
        text += after
    return text


def _escape(text):
    named = _ARGUMENT.fullmatch(text)
    if named:
        return f"{named[1]}{named[2]}{_escape(named[3])}"
    return re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", text)


def _process(app, what, name, obj, options, lines):
    lines[:] = to_rst(lines)


def setup(app):
    """Convert before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"parallel_read_safe": True}
