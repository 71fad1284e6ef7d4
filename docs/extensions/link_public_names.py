"""Public names in code font become links to the reference."""

import public_names
from docutils import nodes
from sphinx import addnodes


def _link(app, doctree):
    known = public_names.targets()
    page = app.env.docname
    for literal in list(doctree.findall(nodes.literal)):
        # "DeltaSTN(shared_pass=True)" is a DeltaSTN.
        full = known.get(literal.astext().partition("(")[0])
        if full is None or page == f"reference/{full}" or _is_inside(literal):
            continue
        reference = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=full, refdoc=page
        )
        literal.replace_self(reference)
        reference += literal


def _is_inside(node):
    """Whether the node is part of a title or of a link already."""
    outside = (
        nodes.title,
        nodes.reference,
        addnodes.pending_xref,
        addnodes.desc_signature,
    )
    while node is not None:
        if isinstance(node, outside):
            return True
        node = node.parent
    return False


def setup(app):
    """Link in every page that is read."""
    app.connect("doctree-read", _link)
    return {"parallel_read_safe": True}
