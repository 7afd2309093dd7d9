"""The documents lead somewhere."""
import re


def test_every_link_in_the_documents_leads_to_a_file(root):
    pages = [*root.glob("*.md"), *(root / "docs").glob("**/*.md")]
    assert len(pages) > 5
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.relative_to(root)} leads to {target}"

