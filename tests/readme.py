"""README.md's generated part and its commands.

`python -m tests.readme` writes the reference anew from the commands' own help.
"""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from charlm.cli.main import COMMANDS, main

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"
WIDTH = 100


def reference() -> str:
    """The help of the program and of each command, as README.md shows it."""
    parts = []
    for words in ([], *([name] for name in COMMANDS)):
        result = CliRunner().invoke(main, [*words, "--help"], prog_name="charlm", terminal_width=WIDTH)
        title = " ".join(["charlm", *words])
        parts.append(f"### {title}\n\n```text\n{result.stdout.rstrip()}\n```\n")
    return "\n".join(parts)


def shell_blocks() -> list[str]:
    """The README's ```sh blocks, in their order."""
    return re.findall(r"^```sh\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def written_reference() -> str:
    """What stands between the markers."""
    text = README.read_text("utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() + "\n"


def main_program() -> None:
    text = README.read_text("utf-8")
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    README.write_text(f"{head}\n\n{reference()}\n{tail}", "utf-8")


if __name__ == "__main__":
    main_program()
