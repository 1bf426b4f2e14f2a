"""`make chapter NAME=NN_slug`: a chapter to start from, with its module, its checkers and tests.

The files come from book/template. They are whole: the chapter runs, keeps the book's rules and
passes its tests before the first word is changed. A module may be there before its chapter: no
file is overwritten. Only the standard library is needed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "chapter.py": "chapters/{name}.py",
    "module.py": "lib/{slug}.py",
    "exercises.py": "lib/teaching/exercises/{slug}.py",
    "test_module.py": "tests/test_{slug}.py",
    "test_exercises.py": "tests/exercises/test_{slug}.py",
}
NEXT = """
Next:
  1. Replace the stand-in formula, module, exercise and prose by yours, a section at a time.
  2. Run the chapter: .venv/bin/python -m pytest --nbval chapters/{name}.py
     See which of the book's rules it breaks: make lint
  3. When it is whole, list its symbols in book/notation.yml, write its line into book/_toc.yml,
     and run make test."""


def planned(name: str) -> tuple[str, str]:
    """The title and the question that book/plan.yml has for a chapter, or stand-ins."""
    number, _, slug = name.partition("_")
    plan = (ROOT / "book" / "plan.yml").read_text("utf8")
    lines = ("- number: " + str(int(number)), "slug: " + slug, "title: (.+)", "question: (.+)")
    entry = re.search(r"\n +".join(lines), plan)
    if entry is None:
        return slug.replace("_", " ").capitalize(), "What is the question of this chapter?"
    return entry[1].strip("\"'"), entry[2].strip("\"'")


def files(name: str) -> dict[Path, str]:
    """The files of a new chapter and their texts."""
    slug = name.partition("_")[2]
    title, question = planned(name)
    result = {}
    for template, target in FILES.items():
        text = (ROOT / "book" / "template" / template).read_text("utf8")
        text = text.replace("question: Question here?", f"question: >-\n#       {question}")
        text = text.replace("Title here", title)
        text = text.replace("NN_slug_here", name)
        text = text.replace("slug_here", slug).replace("slug-here", slug.replace("_", "-"))
        result[ROOT / target.format(name=name, slug=slug)] = text
    return result


def main(arguments: list[str]) -> int:
    name = arguments[0] if len(arguments) == 1 else ""
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        print("say which: make chapter NAME=23_my_topic (two digits, then the module's name)")
        return 2
    chapters = ROOT / "chapters"
    taken = [*chapters.glob(f"{name[:2]}_*.py"), *chapters.glob(f"[0-9][0-9]_{name[3:]}.py")]
    if taken:
        print(f"nothing written, because there is {taken[0].relative_to(ROOT)}")
        return 1
    kept = False
    for path, text in files(name).items():
        if path.exists():
            kept = True
            print(f"kept  {path.relative_to(ROOT)}")
        else:
            path.write_text(text, "utf8")
            print(f"wrote {path.relative_to(ROOT)}")
    print(NEXT.format(name=name))
    if kept:
        print("What was kept is not the stand-in that the new files expect: change them to fit.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
