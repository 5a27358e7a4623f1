"""Write the generated help pages anew: `python -m edgesppo.dev.reference`."""

from __future__ import annotations

from edgesppo.dev.reference import api_page, commands_page
from edgesppo.help.pages import FOLDER

PAGES = {"commands": commands_page.page, "python-reference": api_page.page}


def main() -> None:
    """Write each page, and say which have changed."""
    for name, page in PAGES.items():
        path, text = FOLDER / f"{name}.md", page()
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {'written' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
